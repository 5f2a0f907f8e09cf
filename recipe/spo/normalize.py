"""Whitening of advantages. Off by default: the paper uses A as it is.

    A <- (A - mean) / sqrt(variance + 1e-8)

with mean and (unbiased) variance over the trained tokens of a set: of the whole batch
(`normalize: batch`), or of a micro-batch, as the authors' code does (`micro_batch`; their paper does
not). Whitening erases magnitudes and shifts signs: over a micro-batch of two rows it turns (0.5, 0.1)
into about (+1, -1).

Departure from the authors' code: a set of one token divides by nothing (theirs by zero), and a set of
none stays zero (theirs falls back on masked tokens, which then do not count in the loss anyway).

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import torch

EPSILON = 1e-8


def whiten(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Whiten over the tokens of a mask.

    Args:
        advantages: any shape.
        mask: same shape; non-zero for tokens that train.

    Returns:
        Whitened advantages, 0 outside the mask.
    """
    mask = mask.to(advantages.dtype)
    count = mask.sum()
    mean = (advantages * mask).sum() / count.clamp(min=1)
    variance = ((advantages - mean) ** 2 * mask).sum() / (count - 1).clamp(min=1)
    return (advantages - mean) * torch.rsqrt(variance + EPSILON) * mask
