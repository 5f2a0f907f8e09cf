"""The policy loss as the authors coded it, for parity studies (`algorithm.spo.as_published_code`).

For one micro-batch, with M the probability mask and A whitened over M's tokens of this micro-batch:

    r(t)  = exp(clip(log pi(t) - log pi_old(t), -10, 10))
    loss  = sum over M of max(-A r, -A clip(r, 1 - c, 1 + c)) / number of tokens in M

and a micro-batch whose mean ratio over M exceeds 10 counts nothing. An optimiser step averages its
micro-batches, so a token weighs more in a micro-batch with few trained tokens. The paper's loss
(`recipe.spo.algorithm`, `spo`) whitens nothing and divides by the trained tokens of the whole batch.

Departures: a micro-batch without trained tokens has loss 0, where theirs is 0/0. Rows that fill a
batch up count as sequences of the KL term, where theirs drops what does not fill a batch. The KL
term is verl's, which limits k3 to 10 a token (theirs to 1e9).

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import torch

from recipe.spo.normalize import whiten

LOG_RATIO_LIMIT = 10.0
RATIO_LIMIT = 10.0


def published_policy_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_ratio: float,
) -> tuple[torch.Tensor, dict[str, float], bool]:
    """Loss of one micro-batch.

    Args:
        log_prob: of the policy being trained, shape (rows, response length).
        old_log_prob: of the behaviour policy, same shape.
        advantages: not yet whitened, same shape.
        mask: non-zero for trained tokens, same shape.
        clip_ratio: c.

    Returns:
        The loss, a scalar; `actor/pg_clipfrac`, `actor/ppo_kl` under verl's names; and whether the
        micro-batch is skipped for its mean ratio (the loss is 0 then).
    """
    mask = mask.to(log_prob.dtype)
    tokens = mask.sum().clamp(min=1)
    log_ratio = ((log_prob - old_log_prob) * mask).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    whitened = whiten(advantages, mask)
    plain, clipped = -whitened * ratio, -whitened * ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    loss = (torch.maximum(plain, clipped) * mask).sum() / tokens
    skipped = bool((ratio * mask).sum() / tokens > RATIO_LIMIT)
    if skipped:
        loss = loss * 0.0
    metrics = {
        "actor/pg_clipfrac": (((clipped > plain) * mask).sum() / tokens).item(),
        "actor/ppo_kl": ((-log_ratio * mask).sum() / tokens).item(),
    }
    return loss, metrics, skipped
