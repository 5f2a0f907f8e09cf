"""From credit to the policy gradient: weights under each mask, and samples packed into one sequence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recipe.spo.advantage import Sample
from recipe.spo.bench.packing import pack
from recipe.spo.bench.weighting import policy_gradients


class Recorder:
    """A gradient that is the sum of weights by token."""

    def gradients(self, prompt_ids, samples, weights):
        found = np.zeros((len(weights), 10))
        for number, column in enumerate(weights):
            for sample, values in zip(samples, column, strict=True):
                np.add.at(found[number], list(sample.token_ids), values)
        return found


def sample(path, token_ids, advantage, probability, prefix=()) -> Sample:
    n = len(token_ids)
    logs = (math.log(probability),) * n
    return Sample(path, tuple(prefix), tuple(token_ids), logs, (advantage,) * n, 0.0)


def test_weights_are_advantages_under_each_mask_and_methods_keep_their_own_samples():
    likely, unlikely = sample((0,), (1, 2), 0.5, 0.99), sample((1,), (3,), -0.25, 0.3)
    found = policy_gradients(Recorder(), (9,), [("p", [likely, unlikely]), ("q", [likely]), ("p", [unlikely])], 0.9)
    assert found.shape == (3, 2, 10)
    assert found[0, 0].tolist()[:4] == [0, 0.5, 0.5, -0.25] and found[0, 1].tolist()[:4] == [0, 0, 0, -0.25]
    assert found[1, 0].tolist()[:4] == [0, 0.5, 0.5, 0] and not found[1, 1].any()
    assert found[2, 0].tolist()[:4] == [0, 0, 0, -0.25]


def test_a_trie_holds_a_shared_context_once():
    samples = [sample((0,), (5, 6), 1, 0.5), sample((0, 0), (7,), 1, 0.5, (5, 6)), sample((0, 1), (7,), 1, 0.5, (5, 6))]
    (trie,) = pack((1, 2), samples, [0, 1, 2], 100)
    assert trie.token_ids == [1, 2, 5, 6, 7] and trie.depths == [0, 1, 2, 3, 4] and trie.parents == [-1, 0, 1, 2, 3]
    assert trie.weights([[1.0, 2.0], [0.5], [0.25]]).tolist() == [0, 0, 1, 2, 0.75]
    assert [len(part.members) for part in pack((1, 2), samples, [0, 1, 2], 6)] == [1, 1, 1]
    fork = [sample((0,), (5,), 1, 0.5), sample((1,), (6, 5), 1, 0.5)]
    (trie,) = pack((1,), fork, [0, 1], 100)
    assert trie.sees().astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_the_gradient_of_packed_samples_is_that_of_the_rows_one_by_one(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    from recipe.spo.bench.policy_gradient import PolicyGradient

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=30, max_position_embeddings=64, **sizes)).eval()
    model.save_pretrained(tmp_path)
    prompt, temperature = (3, 4, 5), 0.7
    samples = [
        sample((0,), (6, 7), 1, 0.5),
        sample((0, 0), (8, 9, 10), 1, 0.5, (6, 7)),
        sample((0, 1), (8, 11), 1, 0.5, (6, 7)),
        sample((1,), (12,), 1, 0.5),
    ]
    weights = [[[0.5, -1.0], [1.0, 2.0, 0.0], [-0.25, 1.5], [1.0]], [[0.0, 0.0], [0.0] * 3, [0.0, 1.0], [0.0]]]
    policy = PolicyGradient(tmp_path, temperature, dimension=10_000)
    expected = []
    for column in weights:
        model.zero_grad()
        for each, values in zip(samples, column, strict=True):
            ids = torch.tensor([[*prompt, *each.prefix_ids, *each.token_ids]])
            logs = torch.log_softmax(model(ids[:, :-1]).logits[0] / temperature, -1)
            logs = logs.gather(-1, ids[0, 1:, None])[-len(values) :, 0]
            (logs * torch.tensor(values)).sum().backward()
        sketch = torch.zeros(10_000)
        for parameter, buckets, signs in zip(model.parameters(), policy._buckets, policy._signs, strict=True):
            sketch.index_add_(0, buckets, parameter.grad.flatten() * signs)
        expected.append(sketch.numpy())
    found = policy.gradients(prompt, samples, weights)
    assert np.abs(found - np.array(expected)).max() < 1e-5 * np.abs(expected).max() + 1e-6
    assert not np.allclose(found[0], found[1])
    # the projection keeps lengths, roughly
    assert np.linalg.norm(found[1]) == pytest.approx(
        math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters())), rel=0.1
    )
