"""verl's actor worker with its engine and loss, without Ray: for benchmarks and tests of the engine."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig


def actor_worker(config: DictConfig, actor: Any) -> Any:
    """verl's worker, ready to train.

    Args:
        config: the whole configuration, resolved.
        actor: its `actor_rollout_ref.actor` as verl's dataclass, changed as wanted.
    """
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig
    from verl.workers.utils.losses import ppo_loss

    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=omega_conf_to_dataclass(config.actor_rollout_ref.model),
            engine_config=actor.engine,
            optimizer_config=actor.optim,
            checkpoint_config=actor.checkpoint,
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(ppo_loss, config=actor))
    return worker
