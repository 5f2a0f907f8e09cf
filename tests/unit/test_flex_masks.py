"""FlexAttention takes block masks in front of the configured attention.

On a CPU torch has no kernel for its backward pass, but `aot_eager` traces and computes it as the formula has it: masks,
lengths and the graph are tested here, the GPU's kernel is not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recipe.spo import trie_forward
from recipe.spo.compat.flex_masks import attend_by_block_masks
from recipe.spo.packing import build_trie
from recipe.spo.trie_forward import row_outputs, trie_inputs
from tests.forests import tree_rows
from tests.models import small_model


@pytest.fixture
def registered():
    from transformers.modeling_utils import AttentionInterface

    sdpa = AttentionInterface._global_mapping["sdpa"]
    attend_by_block_masks("sdpa")
    yield
    AttentionInterface.register("sdpa", sdpa)


@pytest.mark.slow  # torch compiles FlexAttention
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_log_probs_and_entropies_are_those_of_the_dense_mask(registered, kind):
    model = small_model(kind, hidden_size=64, num_attention_heads=4).eval().requires_grad_(False)
    rows = tree_rows(np.random.default_rng(0), 70, [3, 3], 30, 30, 17)
    asked = np.concatenate([np.arange(len(row)) > 0 for row in rows])
    outputs = []
    for sparse in (True, False):
        inputs = trie_inputs(build_trie(rows), asked, "cpu", sparse)
        with torch.no_grad():
            logits = model(**inputs.model_inputs(), use_cache=False).logits[0]
        outputs.append(row_outputs(logits, inputs, 0.6, entropy=True))
    for flex, dense in zip(*outputs, strict=True):
        torch.testing.assert_close(flex, dense, rtol=1e-4, atol=1e-4)


@pytest.fixture
def with_backward(registered, monkeypatch):
    import torch.nn.attention.flex_attention as torchs
    import transformers.integrations.flex_attention as transformers_own

    monkeypatch.setattr(torchs, "_validate_device", lambda *arguments: None)
    compiled = torch.compile(torchs.flex_attention, backend="aot_eager")
    monkeypatch.setattr(transformers_own, "WrappedFlexAttention", lambda training: lambda: compiled)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_dense_mask_at_any_length(with_backward, checkpointing):
    model = small_model("llama", hidden_size=64).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for prompt, factors, segment, last in ((70, [3, 3], 30, 30), (20, [2], 5, 5), (40, [3, 3], 30, 60)):
        rows = tree_rows(np.random.default_rng(0), prompt, factors, segment, last, 17)
        asked = np.concatenate([np.arange(len(row)) > 0 for row in rows])
        weights, found = torch.linspace(-1, 1, len(asked)), []
        for sparse in (True, False):
            inputs = trie_inputs(build_trie(rows), asked, "cpu", sparse)
            logits = model(**inputs.model_inputs(), use_cache=False).logits[0]
            log_probs, entropies = row_outputs(logits, inputs, 0.6, entropy=True)
            model.zero_grad()
            ((weights * (log_probs + 1).exp()).sum() - 0.1 * (weights.abs() * entropies).sum()).backward()
            found.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        total = torch.stack([gradient.norm() for gradient in found[1].values()]).norm()
        for name, gradient in found[1].items():
            assert (found[0][name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-5 * total, name


def test_too_many_compilations_are_an_error_and_not_a_dense_attention(with_backward, monkeypatch):
    monkeypatch.setattr(trie_forward, "COMPILATIONS", 1)
    model = small_model("llama", hidden_size=64).eval().requires_grad_(False)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        for prompt in (20, 300, 700):
            rows = tree_rows(np.random.default_rng(0), prompt, [2], 5, 5, 17)
            asked = np.concatenate([np.arange(len(row)) > 0 for row in rows])
            model(**trie_inputs(build_trie(rows), asked, "cpu", sparse=True).model_inputs(), use_cache=False)


def test_other_masks_go_to_the_configured_attention(registered):
    model = small_model("llama")
    ids = torch.arange(12)[None]
    attend_by_block_masks("sdpa")  # once more changes nothing
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        masked = model(
            input_ids=ids, attention_mask=torch.ones(1, 1, 12, 12, dtype=torch.bool).tril(), use_cache=False
        ).logits
    torch.testing.assert_close(plain, masked)
