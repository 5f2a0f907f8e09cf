"""What SPO registers with verl's algorithm registries: the advantage estimator and the policy losses.

All are thin. A segment's credit is known where its siblings are, in the rollout worker, and verl's
estimator API sees neither the fields nor the keys of a row; so the worker writes the advantages into
the row, and the trainer hands them over here for the length of one call.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch
from verl.trainer.ppo.core_algos import (
    compute_policy_loss_vanilla,
    register_adv_est,
    register_policy_loss,
)

from recipe.spo.normalize import whiten
from recipe.spo.published import published_policy_loss

_row_advantages: contextvars.ContextVar[torch.Tensor | None] = contextvars.ContextVar(
    "spo_row_advantages", default=None
)


@contextlib.contextmanager
def row_advantages(advantages: torch.Tensor) -> Iterator[None]:
    """Hand the advantages of a batch's rows to the estimator for the length of the block.

    Args:
        advantages: per-token advantages as the worker wrote them, shape (rows, any width).
    """
    token = _row_advantages.set(advantages)
    try:
        yield
    finally:
        _row_advantages.reset(token)


@register_adv_est("spo")
def compute_spo_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, config: Any = None, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantage estimator `spo`: hand over what the rows carry (paper, section 4.2).

    Args:
        token_level_rewards: shape (rows, response length); only its shape and dtype are used.
        response_mask: 1 for trained tokens, shape (rows, response length).
        config: verl's `algorithm` node; with `spo.normalize: batch` in it, advantages are whitened
            over all trained tokens of the batch.

    Returns:
        `(advantages, returns)`, both of shape (rows, response length) and zero outside the mask.
        Returns equal advantages: there is no critic.

    Raises:
        RuntimeError: no advantages were handed over, or not one row for each row of the mask.
    """
    carried = _row_advantages.get()
    if carried is None:
        raise RuntimeError(
            "estimator 'spo' found no segment advantages: it needs rows from SPO's rollout worker. Set "
            "trainer.v1.trainer_mode=spo_sync and actor_rollout_ref.rollout.agent.agent_loop_manager_class="
            "recipe.spo.rollout.worker.SPOAgentLoopManager, or start from --config-name spo_trainer"
        )
    if carried.size(0) != response_mask.size(0):
        raise RuntimeError(f"{carried.size(0)} rows carry advantages, but the batch has {response_mask.size(0)}")
    # verl's padding rows copy the fields of a real row, so they can be wider than the mask here.
    width = response_mask.size(1)
    advantages = torch.nn.functional.pad(carried[:, :width], (0, max(0, width - carried.size(1))))
    advantages = advantages.to(token_level_rewards.dtype) * response_mask
    if config is not None and config.spo.normalize == "batch":
        advantages = whiten(advantages, response_mask)
    return advantages, advantages.clone()


@register_policy_loss("spo")
def compute_spo_policy_loss(*, config: Any, loss_agg_mode: str, **kwargs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """Policy loss `spo`: verl's clipped loss (paper, eq. 8), defined for a step without trained tokens.

    Z, the number of trained tokens of the whole optimiser batch, is computed by verl's engine from
    `loss_mask`. An optimiser step can have none, when an iteration has fewer rows than steps; verl
    would divide by zero and log NaN. The dictionary is shared with the entropy and KL terms, which
    verl normalises after this call, by `loss_agg_mode`; the policy loss is always a mean over tokens.
    """
    info = config.global_batch_info
    if info.get("batch_num_tokens") is not None:
        info["batch_num_tokens"] = max(info["batch_num_tokens"], 1)
    return compute_policy_loss_vanilla(config=config, loss_agg_mode="token-mean", **kwargs)


@register_policy_loss("spo_whitened")
def compute_whitened_policy_loss(
    *, advantages: torch.Tensor, response_mask: torch.Tensor, **kwargs: Any
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Policy loss `spo` on advantages that are whitened over each micro-batch (`normalize: micro_batch`)."""
    whitened = whiten(advantages, response_mask)
    return compute_spo_policy_loss(advantages=whitened, response_mask=response_mask, **kwargs)


@register_policy_loss("spo_published")
def compute_published_policy_loss(
    *,
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any,
    **_: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The loss of the authors' code (`as_published_code`), see `recipe.spo.published`.

    They average micro-batches of equal size; verl adds them up, so each weighs its share of the
    optimiser batch's rows. A skipped micro-batch counts nothing, its KL term included, which verl adds
    after this call and divides by the number of rows.
    """
    info = config.global_batch_info
    loss, metrics, skipped = published_policy_loss(log_prob, old_log_prob, advantages, response_mask, config.clip_ratio)
    loss = loss * len(log_prob) / info["global_batch_size"] * info["dp_size"]
    if skipped:
        info["global_batch_size"] = float("inf")
    return loss, metrics


def policy_loss_name(normalize: str, as_published_code: bool) -> str:
    """Which of these losses the settings ask for."""
    if as_published_code:
        return "spo_published"
    return "spo_whitened" if normalize == "micro_batch" else "spo"
