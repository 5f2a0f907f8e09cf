"""verl's V1 sync trainer with what SPO needs to differ. Registered as `spo_sync`.

Overridden: how many rows a batch is padded to and how they are dealt out (K optimiser steps whatever
the number of rows), where advantages come from, and what happens in a step without rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from recipe.spo.algorithm import row_advantages
from recipe.spo.batching import optimizer_step_order
from recipe.spo.dump import Dump
from recipe.spo.rollout.queue import NoTrainableRows
from recipe.spo.settings import settings_of


@register_trainer("spo_sync")
class SPOTrainer(PPOTrainerSync):
    """Trains on rows that carry their segment advantages."""

    def __init__(self, config: DictConfig) -> None:
        # verl's base class tells its modes apart by name, and this one is its sync mode.
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        self.spo = settings_of(config, int(config.data.max_response_length))
        self.dump = Dump(self.spo.dump_dir) if self.spo.dump_dir else None

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except NoTrainableRows as nothing:
            metrics.update(nothing.metrics)
            metrics["spo/skipped_updates"] = 1
            self.on_sample_end()
            return nothing.prompts

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size * self.spo.optimizer_steps

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        order = optimizer_step_order(
            lengths=[tag["seq_len"] for tag in batch.tags],
            is_padding=[bool(tag.get("is_padding")) for tag in batch.tags],
            ranks=max(self.actor_rollout_wg._dispatch_info["actor"]) + 1,
            steps=self.spo.optimizer_steps,
            seed=hash((int(self.config.actor_rollout_ref.actor.data_loader_seed), self.global_steps)),
        )
        batch.reorder(order)
        metrics["spo/padding_rows"] = sum(bool(tag.get("is_padding")) for tag in batch.tags)
        metrics["spo/optimizer_steps"] = self.spo.optimizer_steps * self.config.actor_rollout_ref.actor.ppo_epochs
        metrics["spo/skipped_updates"] = 0
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        carried = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["spo_advantages"])
        with row_advantages(carried["spo_advantages"].to_padded_tensor(0.0)):
            batch = super()._compute_advantage(batch, metrics)
        # verl's rejection sampling narrows response_mask alone; its engine normalises by loss_mask.
        mask = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        mask["loss_mask"] = mask.pop("response_mask")
        batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=mask)
        if self.dump is not None:
            self._dump_rows(batch)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        # verl reads its mini-batch size, in rows, from the configuration; ours follows from K.
        actor = self.config.actor_rollout_ref.actor
        configured = actor.ppo_mini_batch_size
        actor.ppo_mini_batch_size = len(batch) // self.spo.optimizer_steps
        try:
            return super()._update_actor(batch, metrics)
        finally:
            actor.ppo_mini_batch_size = configured

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        if not _is_rowless(batch):
            super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
            return
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        if not _is_rowless(batch):
            super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    def _dump_rows(self, batch: KVBatchMeta) -> None:
        """Write the rows of the step as the actor is about to train them."""
        fields = ["prompts", "responses", "response_mask", "loss_mask", "rollout_log_probs", "old_log_probs"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=[*fields, "advantages", "rm_scores"]
        )
        columns = {name: [np.asarray(row).tolist() for row in data[name].unbind()] for name in data.keys()}
        self.dump.write_rows(
            [
                {
                    "key": key,
                    "step": self.global_steps,
                    "path": tag.get("path"),
                    "is_padding": bool(tag.get("is_padding")),
                    **{name: column[i] for name, column in columns.items()},
                }
                for i, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True))
            ]
        )


def _is_rowless(batch: KVBatchMeta) -> bool:
    """Whether a step's batch is its prompts only, because none of them left a row."""
    return all(tag.get("is_prompt") for tag in batch.tags)
