"""verl's V1 sync trainer with what SPO needs to differ. Registered as `spo_sync`.

Overridden: how many rows a batch is padded to and how they are dealt out (K optimiser steps whatever
the number of rows), where advantages and old log-probs come from, what happens in a step without
rows, that rows which wait for a later step are part of a checkpoint, which checkpoints are kept, and that
a run may end by the tokens that it has generated.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug.metrics import calculate_debug_metrics

from recipe.spo.algorithm import row_advantages
from recipe.spo.batching import arrival_order, optimizer_step_order
from recipe.spo.checkpoints import Checkpoints
from recipe.spo.compat.aged_loss import AGE_FIELD, OLDEST, clip_fractions
from recipe.spo.dump import ROWS, Dump
from recipe.spo.parsing import settings_of
from recipe.spo.rollout.queue import PATH_TAG, QUESTION_TAG, NoTrainableRows
from recipe.spo.rollout.waiting import load_waiting_rows, save_waiting_rows
from recipe.spo.sharing import sharing_metrics


@register_trainer("spo_sync")
class SPOTrainer(PPOTrainerSync):
    """Trains on rows that carry their segment advantages."""

    def __init__(self, config: DictConfig) -> None:
        # verl's base class tells its modes apart by name, and this one is its sync mode.
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        self.spo = settings_of(config, int(config.data.max_response_length))
        self.dump = Dump(self.spo.dump_dir) if self.spo.dumps_all else None
        self.checkpoints = Checkpoints(
            Path(config.trainer.default_local_dir), config.trainer.max_actor_ckpt_to_keep, self.spo.keep_best
        )

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        data = self.config.data
        metrics["spo/context"] = self.spo.context_at(
            self.global_steps, full=data.max_prompt_length + data.max_response_length
        )
        try:
            batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        except NoTrainableRows as nothing:
            metrics.update(nothing.metrics)
            metrics.update({"spo/skipped_updates": 1, "spo/trained_rows": 0, "spo/trained_tokens": 0})
            self.on_sample_end()
            batch = nothing.prompts
        self.checkpoints.count(metrics)
        if self._budget_is_spent():
            print(f"algorithm.spo.token_budget is spent: step {self.global_steps} is the last")
            self.total_training_steps = self.global_steps
            # verl has decided before the step that it is not the last one: any step divides by 1.
            trainer = self.config.trainer
            trainer.update({name: 1 for name in ("test_freq", "save_freq") if trainer[name] > 0})
        return batch

    def _budget_is_spent(self) -> bool:
        budget = self.spo.token_budget
        return budget is not None and self.checkpoints.totals["generated_tokens"] >= budget

    @property
    def _rows_a_unit(self) -> int:
        """Rows that have to stay together: one, or a micro-batch of fixed size."""
        actor = self.config.actor_rollout_ref.actor
        return 1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size * self.spo.optimizer_steps * self._rows_a_unit

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        arrived = list(batch.keys)
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        # verl's balance depends on the number of ranks; what goes into an optimiser step must not.
        batch.reorder(arrival_order(arrived, batch.keys))
        order = optimizer_step_order(
            lengths=[tag["seq_len"] for tag in batch.tags],
            is_padding=[bool(tag.get("is_padding")) for tag in batch.tags],
            ranks=max(self.actor_rollout_wg._dispatch_info["actor"]) + 1,
            steps=self.spo.optimizer_steps,
            unit=self._rows_a_unit,
            seed=hash((int(self.config.actor_rollout_ref.actor.data_loader_seed), self.global_steps)),
            kin=None if self.spo.share_prefixes == "off" else [_kinship(tag) for tag in batch.tags],
        )
        batch.reorder(order)
        metrics["spo/padding_rows"] = sum(bool(tag.get("is_padding")) for tag in batch.tags)
        metrics["spo/optimizer_steps"] = self.spo.optimizer_steps * self.config.actor_rollout_ref.actor.ppo_epochs
        metrics["spo/skipped_updates"] = 0
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Rows of earlier steps keep the log-probs of the policy that sampled them (paper, appendix D)."""
        batch = super()._compute_old_log_prob(batch, metrics)
        if (self.config.algorithm.get("rollout_correction") or {}).get("bypass_mode"):
            return batch  # all rows have the sampler's already; there is nothing to compare
        waited = [not tag.get("is_padding") and tag["global_steps"] < self.global_steps for tag in batch.tags]
        if not any(waited):
            return batch
        keys = [key for key, old in zip(batch.keys, waited, strict=True) if old]
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["rollout_log_probs", "old_log_probs"]
        )
        drift = (data["old_log_probs"].values() - data["rollout_log_probs"].values()).abs()
        metrics["spo/replay/log_prob_drift"] = drift.mean().item()
        data["old_log_probs"] = data.pop("rollout_log_probs")
        tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=data)
        # verl's comparison of sampler and trainer is about one policy: new rows only.
        for name in [name for name in metrics if name.startswith("training/rollout_")]:
            del metrics[name]
        new = [
            key
            for key, tag, old in zip(batch.keys, batch.tags, waited, strict=True)
            if not old and not tag.get("is_padding")
        ]
        if new:
            fields = ["old_log_probs", "rollout_log_probs", "response_mask", "responses"]
            fresh = tq.kv_batch_get(keys=new, partition_id=batch.partition_id, select_fields=fields)
            metrics.update(calculate_debug_metrics(DataProto(batch=fresh.to_padded_tensor())))
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.spo.method == "ppo":
            batch = super()._compute_advantage(batch, metrics)
        else:
            if self.spo.trainer_masks:
                self._mask(batch)
            carried = tq.kv_batch_get(
                keys=batch.keys, partition_id=batch.partition_id, select_fields=["spo_advantages"]
            )
            with row_advantages(carried["spo_advantages"].to_padded_tensor(0.0)):
                batch = super()._compute_advantage(batch, metrics)
        # verl's rejection sampling narrows response_mask alone; its engine normalises by loss_mask.
        mask = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        mask["loss_mask"] = mask.pop("response_mask")
        _count_trained(batch, mask["loss_mask"], metrics)
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=mask)

    def _mask(self, batch: KVBatchMeta) -> torch.Tensor:
        """Narrow the masks to improbable tokens, by the log-probs of `mask_source`; gives the new mask."""
        field = "old_log_probs" if self.spo.mask_source == "trainer" else "rollout_log_probs"
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[field, "response_mask"])
        mask = data["response_mask"]
        improbable = data.pop(field).values().exp() < self.spo.mask_threshold
        narrowed = torch.nested.nested_tensor_from_jagged(mask.values() * improbable, mask.offsets())
        data["response_mask"], data["loss_mask"] = narrowed, narrowed.clone()
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)
        return narrowed

    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        with _set(self.config.critic, ppo_mini_batch_size=self._mini_batch_rows(batch)):
            return super()._update_critic(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.spo.method == "ppo" and self.spo.trainer_masks:
            # Only now: the critic learns from every token.
            _count_trained(batch, self._mask(batch), metrics)
        if self.dump is not None:
            self._dump_rows(batch)
        if self.spo.replay.max_age:
            self._put_ages(batch)
        with _set(self.config.actor_rollout_ref.actor, ppo_mini_batch_size=self._mini_batch_rows(batch)):
            batch = super()._update_actor(batch, metrics)
        for age, fraction in clip_fractions(metrics).items():
            metrics[f"spo/replay/clip_fraction_of_age_{age}"] = fraction
        metrics.update(sharing_metrics(metrics))
        return batch

    def _mini_batch_rows(self, batch: KVBatchMeta) -> int:
        """verl reads its mini-batch size, in rows, from the configuration; ours follows from K."""
        return len(batch) // self.spo.optimizer_steps

    def _put_ages(self, batch: KVBatchMeta) -> None:
        """Tell the loss how old each row is; see `recipe.spo.compat.aged_loss`."""
        mask = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        offsets = mask["response_mask"].offsets()
        ages = [0 if tag.get("is_padding") else self.global_steps - tag["global_steps"] for tag in batch.tags]
        a_token = torch.tensor(ages).repeat_interleave(offsets.diff().cpu())
        field = torch.nested.nested_tensor_from_jagged(a_token, offsets.cpu())
        fields = TensorDict({AGE_FIELD: field}, batch_size=[len(ages)])
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        if batch.fields is not None:  # the fields that workers fetch
            batch.fields = [*batch.fields, AGE_FIELD]
        batch.extra_info[OLDEST] = self.spo.replay.max_age

    def _save_checkpoint(self) -> None:
        # First our parts: verl marks a checkpoint as complete at the end of its own.
        self.checkpoints.saving(self.global_steps)
        if self.spo.replay.max_age:
            folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
            save_waiting_rows(folder, self.replay_buffer.kept)
        # verl deletes nothing, `Checkpoints` does.
        with _set(self.config.trainer, max_actor_ckpt_to_keep=None, max_critic_ckpt_to_keep=None):
            super()._save_checkpoint()
        self.checkpoints.saved(self.global_steps)

    def _validate(self) -> dict[str, float]:
        metrics = super()._validate()
        rows = getattr(self.val_dataset, "dataframe", None)  # a data set class of one's own need not have it
        sources = ["all"] * len(self.val_dataset) if rows is None else rows["data_source"]
        self.checkpoints.validated(self.global_steps, metrics, Counter(map(str, sources)))
        return metrics

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            trainer = self.config.trainer
            named = trainer.resume_from_path if trainer.resume_mode == "resume_path" else None
            folder = Path(named or Path(trainer.default_local_dir) / f"global_step_{self.global_steps}")
            # Without replay now, rows that waited then are counted as expired by the first step.
            load_waiting_rows(folder, required=self.spo.replay.max_age > 0)
            self.checkpoints.resumed(self.global_steps, folder)
            if self._budget_is_spent():
                print("algorithm.spo.token_budget is spent: nothing is left to do; raise it to go on")
                self.total_training_steps = self.global_steps

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
        self.dump.write(
            ROWS,
            [
                {
                    "key": key,
                    "step": self.global_steps,
                    "path": tag.get(PATH_TAG),
                    "question": tag.get(QUESTION_TAG),
                    "born": tag.get("global_steps"),
                    "is_padding": bool(tag.get("is_padding")),
                    **{name: column[i] for name, column in columns.items()},
                }
                for i, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True))
            ],
        )


@contextlib.contextmanager
def _set(node: DictConfig, **values: Any) -> Iterator[None]:
    """Other values in the configuration for the length of one call."""
    configured = {name: node[name] for name in values}
    node.update(values)
    try:
        yield
    finally:
        node.update(configured)


def _count_trained(batch: KVBatchMeta, mask: torch.Tensor, metrics: dict) -> None:
    """Say how many rows and tokens train; `mask` is 1 on those that do."""
    rows = [tag for tag in batch.tags if not tag.get("is_padding")]
    metrics["spo/trained_rows"] = len(rows)
    metrics["spo/trained_tokens"] = mask.values().sum().item()
    metrics["spo/trained_token_share"] = metrics["spo/trained_tokens"] / sum(tag["response_len"] for tag in rows)


def _kinship(tag: dict[str, Any]) -> tuple[str, str]:
    """Question and path of a row: rows that share a prefix are near each other in this order."""
    return str(tag.get(QUESTION_TAG)), str(tag.get(PATH_TAG))


def _is_rowless(batch: KVBatchMeta) -> bool:
    """Whether a step's batch is its prompts only, because none of them left a row."""
    return all(tag.get("is_prompt") for tag in batch.tags)
