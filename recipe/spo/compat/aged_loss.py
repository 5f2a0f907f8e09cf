"""Counts what PPO's clipping cuts off, by the age of the row, in verl's policy loss.

For: verl.workers.utils.losses.ppo_loss, which hands a policy loss the tensors of its rows but no other
field of theirs, so that `pg_clipfrac` is one number for new rows and for those that waited.
Needless when: verl passes the rows themselves to a policy loss.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

#: Field of a row: its age in steps, once a token.
AGE_FIELD = "spo_age"
#: Of a batch: the greatest age that a row of the run can have. Without it nothing is counted.
OLDEST = "spo_oldest_age"
_CLIPPED, _TOKENS = "actor/spo_clipped_of_age_", "actor/spo_tokens_of_age_"


def apply() -> None:
    """Patch verl's policy loss in this process; idempotent.

    It must come before `verl.workers.engine_workers` is imported, which takes the function by its name.
    """
    from verl.utils import tensordict_utils
    from verl.utils.metric import AggregationType, Metric
    from verl.workers.utils import losses
    from verl.workers.utils.padding import no_padding_2_padding

    original = losses.ppo_loss
    if getattr(original, "_spo_patched", False):
        return

    @functools.wraps(original)
    def ppo_loss(config: Any, model_output: Any, data: Any, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
        loss, metrics = original(config, model_output, data, dp_group)
        oldest = tensordict_utils.get_non_tensor_data(data=data, key=OLDEST, default=None)
        # Advantages that are whitened within the loss are not those that stand in the row.
        if oldest is not None and config.policy_loss.get("loss_mode") == "spo":
            rows = data.select("old_log_probs", "advantages", "response_mask", AGE_FIELD).to_padded_tensor()
            log_prob = no_padding_2_padding(model_output["log_probs"], data).detach()
            counts = clip_counts(log_prob, rows, oldest, config.clip_ratio_low, config.clip_ratio_high)
            # A sum over micro-batches; `clip_fractions` divides two of them, so means over ranks do no harm.
            metrics.update({name: Metric(AggregationType.SUM, value) for name, value in counts.items()})
        return loss, metrics

    ppo_loss._spo_patched = True  # type: ignore[attr-defined]
    losses.ppo_loss = ppo_loss


def clip_counts(log_prob: torch.Tensor, rows: Any, oldest: int, low: float, high: float) -> dict[str, float]:
    """Count the trained tokens of each age, and those of them that clipping takes out of the gradient.

    Args:
        log_prob: of the current policy, shape (rows, response length).
        rows: `old_log_probs`, `advantages`, `response_mask` and `AGE_FIELD`, of the same shape.
        oldest: greatest age; every age up to it is named, or ranks would disagree on the metrics.
        low: a ratio below 1 - low is clipped where the advantage is negative.
        high: a ratio above 1 + high is clipped where the advantage is positive.

    Returns:
        Two numbers an age, under the names that `clip_fractions` reads.
    """
    ratio, advantages = (log_prob - rows["old_log_probs"]).exp(), rows["advantages"]
    clipped = ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))
    trained, ages = rows["response_mask"].bool(), rows[AGE_FIELD]
    counts: dict[str, float] = {}
    for age in range(oldest + 1):
        tokens = trained & (ages == age)
        counts[f"{_TOKENS}{age}"] = float(tokens.sum())
        counts[f"{_CLIPPED}{age}"] = float((clipped & tokens).sum())
    return counts


def clip_fractions(metrics: dict[str, Any]) -> dict[int, float]:
    """Take the counts out of a step's metrics.

    Args:
        metrics: a step's metrics; the counts are removed.

    Returns:
        age -> share of the trained tokens of that age that were clipped; ages without a token are left out.
    """
    ages = [int(name.removeprefix(_TOKENS)) for name in metrics if name.startswith(_TOKENS)]
    fractions = {}
    for age in sorted(ages):
        tokens, clipped = metrics.pop(f"{_TOKENS}{age}"), metrics.pop(f"{_CLIPPED}{age}")
        if tokens:
            fractions[age] = float(clipped / tokens)
    return fractions
