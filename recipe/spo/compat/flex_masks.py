"""FlexAttention wherever a model is given a block mask, whatever attention it is configured with.

For: transformers chooses attention by the model's configuration, once for all calls, but a pass over a trie needs
FlexAttention and a pass over rows the configured kernel. The mask tells them apart, which also holds when gradient
checkpointing calls a layer again. Comes in through transformers' own registry of attention functions.
Needless when: transformers chooses by the type of the mask.
"""

from __future__ import annotations

from typing import Any

import torch

from recipe.spo.trie_forward import no_silent_fallback


def attend_by_block_masks(implementation: str) -> None:
    """Register the configured attention anew, with FlexAttention in front of it for block masks; idempotent.

    Args:
        implementation: the model's `attn_implementation`.
    """
    from torch.nn.attention.flex_attention import BlockMask
    from transformers.integrations.flex_attention import flex_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

    configured = ALL_ATTENTION_FUNCTIONS[implementation]
    if getattr(configured, "_spo_patched", False):
        return

    def attend(
        module: torch.nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if isinstance(attention_mask, BlockMask):
            # Rotary embeddings can leave these in another precision than the values under autocast.
            query, key = query.to(value.dtype), key.to(value.dtype)
            with no_silent_fallback():
                return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return configured(module, query, key, value, attention_mask, **kwargs)

    attend._spo_patched = True  # type: ignore[attr-defined]
    AttentionInterface.register(implementation, attend)
