"""FlexAttention takes block masks in front of the configured attention. Its backward pass does not exist on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
