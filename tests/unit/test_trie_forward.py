"""A model on the trie of rows gives what it gives on each row alone: log-probs, entropies, loss, every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.spo.grouping import Cost, group_rows
from recipe.spo.packing import build_trie, sort_rows
from recipe.spo.sharing import SharingError
from recipe.spo.trie_forward import _HeadOutputs, ancestor_mask, row_inputs, row_outputs, trie_inputs
from tests.forests import forests, tree_rows
from tests.models import small_model

TOLERANCE = 1e-5
#: Of a sum's absolute terms, what float32 may lose where they cancel: some units in the last place.
ROUNDING = 5e-7


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost more than they bring to models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request):
    return small_model(request.param).train()


def by_rows(model, rows: list[np.ndarray], asked: np.ndarray, temperature: float):
    """The reference: each row alone, plain causal attention, a plain log-softmax. Flat, as `row_outputs` has it.

    And the largest logit, of which log-probs and entropies are differences.
    """
    log_probs, entropies, largest = [], [], 0.0
    for row in rows:
        logits = model(input_ids=torch.from_numpy(row)[None], use_cache=False).logits[0] / temperature
        distribution = torch.log_softmax(logits, dim=-1)
        largest = max(largest, float(logits.detach().abs().max()))
        following = torch.from_numpy(np.append(row[1:], 0))
        log_probs.append(distribution.gather(1, following[:, None])[:, 0])
        entropies.append(-(distribution.exp() * distribution).sum(dim=-1))
    predicts = torch.from_numpy(np.append(asked[1:], False))
    return torch.cat(log_probs) * predicts, torch.cat(entropies) * predicts, largest


def by_trie(model, rows: list[np.ndarray], asked: np.ndarray, temperature: float):
    inputs = trie_inputs(build_trie(rows), asked, "cpu")
    logits = model(**inputs.model_inputs(), use_cache=False).logits[0]
    return row_outputs(logits, inputs, temperature, entropy=True)


def loss_of(log_probs: torch.Tensor, entropies: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Not linear, and different for each token of each row: a policy-gradient loss with an entropy bonus."""
    return (weights * (log_probs + 1.0).exp()).sum() - 0.1 * (weights.abs() * entropies).sum()


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, what: str, terms: float) -> None:
    """Relative to its size, and to the absolute terms that it is a sum of."""
    difference, size = (ours - theirs).norm(), theirs.norm()
    assert difference <= TOLERANCE * size + ROUNDING * terms, f"{what}: {difference:.2e} of {size:.2e}, {terms:.2e}"


def assert_gradients_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], terms: float = 0.0) -> None:
    """Each relative to its size; but a key bias has a gradient of zero, and only rounding, which is that of all."""
    total = float(torch.stack([gradient.norm() for gradient in theirs.values()]).norm())
    for name, gradient in theirs.items():
        assert_close(ours[name], gradient, name, total + terms)


def assert_same(model, rows: list[np.ndarray], asked: np.ndarray, seed: int, temperature: float) -> None:
    weights = torch.randn(len(asked), generator=torch.Generator().manual_seed(seed))
    *theirs, largest = by_rows(model, rows, asked, temperature)
    # What a log-prob or entropy is off by where logits cancel, and the loss and its gradient with it.
    terms = largest * float((weights.abs() * (1 + theirs[0].detach().exp())).sum())
    their_loss = loss_of(*theirs, weights)
    their_gradients = gradients(model, their_loss)
    ours = by_trie(model, rows, asked, temperature)
    our_loss = loss_of(*ours, weights)
    our_gradients = gradients(model, our_loss)
    for one, other, what in zip(ours, theirs, ("log-probs", "entropy"), strict=True):
        assert_close(one, other, what, largest * len(asked) ** 0.5)
    assert_close(our_loss, their_loss, "loss", terms)
    assert_gradients_close(our_gradients, their_gradients, terms)


def choose(rows: list[np.ndarray], share: float, seed: int) -> np.ndarray:
    """Ask for some tokens, of each row at least the last that can be asked for."""
    rng = np.random.default_rng(seed)
    asked = [rng.random(len(row)) < share for row in rows]
    for row in asked:
        row[-1], row[0] = True, False
    return np.concatenate(asked)


@settings(max_examples=25)
@given(rows=forests(), seed=st.integers(0, 9), share=st.sampled_from([0.3, 1.0]), hot=st.booleans())
def test_any_forest_gives_the_rows_own_loss_and_gradients(model, rows, seed, share, hot):
    """Rows of one token, rows that are the same, prefixes of each other, of several prompts, or share nothing."""
    assert_same(model, rows, choose(rows, share, seed), seed, temperature=0.6 if hot else 1.0)


def test_a_tree_of_segments_gives_the_rows_own_loss_and_gradients(model):
    rows = tree_rows(np.random.default_rng(0), 9, [3, 3, 3], 5, 11, 17)
    assert build_trie(rows).ratio > 1.8
    assert_same(model, rows, choose(rows, 0.5, 0), seed=0, temperature=0.6)


def test_gradient_checkpointing_changes_nothing(model):
    rows = tree_rows(np.random.default_rng(1), 5, [2, 2], 4, 6, 17)
    asked = choose(rows, 1.0, 0)
    weights = torch.linspace(-1, 1, len(asked))
    plain = gradients(model, loss_of(*by_trie(model, rows, asked, 1.0), weights))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        checkpointed = gradients(model, loss_of(*by_trie(model, rows, asked, 1.0), weights))
    finally:
        model.gradient_checkpointing_disable()
    assert_gradients_close(checkpointed, plain)


@pytest.mark.parametrize("wrong", ["causal mask", "running positions"])
def test_the_comparison_notices(model, wrong):
    """Without the ancestors-only mask, or with places instead of depths for positions, log-probs are others."""
    rows = tree_rows(np.random.default_rng(0), 9, [3, 3], 5, 5, 17)
    asked = choose(rows, 1.0, 0)
    inputs = trie_inputs(build_trie(rows), asked, "cpu").model_inputs()
    if wrong == "causal mask":
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"]).tril()
    else:
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
    with torch.no_grad():
        right = by_rows(model, rows, asked, 1.0)[0]
        made = row_outputs(
            model(**inputs, use_cache=False).logits[0], trie_inputs(build_trie(rows), asked, "cpu"), 1.0
        )[0]
    assert (made - right).abs().max() > 0.01


def test_the_head_runs_at_asked_places_alone(model):
    rows = tree_rows(np.random.default_rng(0), 9, [3, 3], 5, 5, 17)
    asked = choose(rows, 0.0, 0)
    inputs = trie_inputs(build_trie(rows), asked, "cpu")
    logits = model(**inputs.model_inputs(), use_cache=False).logits
    assert logits.shape[1] == len(inputs.keep) == len(rows) < inputs.input_ids.shape[1]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_packed_rows_give_the_rows_own_loss_and_gradients_and_logits_where_asked_alone(model, share):
    """The path of rows that are not worth sharing, one after the other in a batch without padding."""
    rows = tree_rows(np.random.default_rng(0), 6, [2, 2], 4, 7, 17)
    asked = choose(rows, share, 0)
    weights = torch.linspace(-1, 1, len(asked))
    offsets = np.cumsum([0, *map(len, rows)])
    inputs = row_inputs(np.concatenate(rows), offsets, asked, "cpu")
    logits = model(**inputs.model_inputs(), use_cache=False).logits
    assert logits.shape[1] == len(inputs.keep) == asked.sum() < inputs.input_ids.shape[1] == len(asked)
    made = row_outputs(logits[0], inputs, 0.6, entropy=True)
    ours = gradients(model, loss_of(*made, weights))
    *theirs, largest = by_rows(model, rows, asked, 0.6)
    for one, other, what in zip(made, theirs, ("log-probs", "entropy"), strict=True):
        assert_close(one, other, what, largest * len(asked) ** 0.5)
    assert_gradients_close(ours, gradients(model, loss_of(*theirs, weights)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_that_gives_other_logits_than_asked_for_is_refused(model, packed):
    rows = tree_rows(np.random.default_rng(0), 6, [2, 2], 4, 7, 17)
    asked = choose(rows, 0.4, 0)
    offsets = np.cumsum([0, *map(len, rows)])
    flat = np.concatenate(rows)
    inputs = row_inputs(flat, offsets, asked, "cpu") if packed else trie_inputs(build_trie(rows), asked, "cpu")
    given = {name: value for name, value in inputs.model_inputs().items() if name != "logits_to_keep"}
    logits = model(**given, use_cache=False).logits[0]
    count = inputs.input_ids.numel()
    with pytest.raises(SharingError, match=f"{count} tokens where {len(inputs.keep)} were asked for.*=off"):
        row_outputs(logits, inputs)


@settings(max_examples=25)
@given(rows=forests(shortest=2), spare=st.integers(0, 20), least=st.integers(1, 7), dense=st.booleans())
def test_any_micro_batches_add_up_to_the_rows_own_gradients(model, rows, spare, least, dense):
    masks = [np.append(False, np.ones(len(row) - 1, dtype=bool)) for row in rows]
    weights = torch.randn(sum(map(len, rows)), generator=torch.Generator().manual_seed(0))
    *theirs, largest = by_rows(model, rows, np.concatenate(masks), 1.0)
    terms = largest * float((weights.abs() * (1 + theirs[0].detach().exp())).sum())
    expected = gradients(model, loss_of(*theirs, weights))
    each = weights.split([len(row) for row in rows])
    budget = max(map(len, rows)) + spare
    cut = group_rows(sort_rows(rows), budget, Cost(0.1, 2.0, dense), min(least, len(rows)))
    model.zero_grad()
    for group in cut.groups:
        made = by_trie(model, [rows[i] for i in group], np.concatenate([masks[i] for i in group]), 1.0)
        loss_of(*made, torch.cat([each[i] for i in group])).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_gradients_close(found, expected, terms)


def test_gradients_of_the_head_outputs_against_differences():
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    source, targets = torch.tensor([0, 0, 3, 2]), torch.tensor([1, 4, 5, 0])

    def outputs(x: torch.Tensor) -> torch.Tensor:
        x = x / 0.7
        log_p = torch.log_softmax(x, dim=-1)
        return torch.cat([log_p[source, targets], -(log_p.exp() * log_p).sum(-1)])

    weights = torch.randn(8, dtype=torch.float64)
    (expected,) = torch.autograd.grad((outputs(logits) * weights).sum(), logits)
    single = logits.detach().float().requires_grad_()
    made = torch.cat(_HeadOutputs.apply(single, source, targets, 1 / 0.7, True))
    torch.testing.assert_close(made.double(), outputs(logits).detach(), rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad((made * weights.float()).sum(), single)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_block_mask_is_the_dense_mask():
    """FlexAttention's mask, block by block, padding included."""
    from torch.nn.attention.flex_attention import create_mask

    rows = tree_rows(np.random.default_rng(0), 90, [3, 3], 30, 30, 17)
    trie = build_trie(rows)
    inputs = trie_inputs(trie, choose(rows, 1.0, 0), "cpu", sparse=True)
    nodes = inputs.input_ids.shape[1]
    assert nodes % 128 == 0 and nodes > len(trie)
    made = create_mask(inputs.mask.mask_mod, 1, 1, nodes, nodes, device="cpu")
    dense = ancestor_mask(torch.from_numpy(trie.subtree_end))
    assert torch.equal(made[..., : len(trie), : len(trie)], dense)
    assert not made[..., : len(trie), len(trie) :].any() and not made[..., len(trie) :, : len(trie)].any()
    # Blocks that are skipped hold nothing.
    visited = torch.zeros(nodes, nodes, dtype=torch.bool)
    blocks = visited.view(nodes // 128, 128, nodes // 128, 128)
    for counts, indices in (
        (inputs.mask.kv_num_blocks, inputs.mask.kv_indices),
        (inputs.mask.full_kv_num_blocks, inputs.mask.full_kv_indices),
    ):
        for query in range(nodes // 128):
            for key in indices[0, 0, query, : counts[0, 0, query]].tolist():
                blocks[query, :, key] = True
    assert not (made[0, 0] & ~visited).any()
