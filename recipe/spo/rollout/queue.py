"""Which rows a training step gets: all rows of the step's prompts, and the counts of all its trees.

Comes in through verl's `trainer.v1.sampler.custom_sampler`. verl's own replay buffer refuses a step
whose prompts left no row; here such a step is normal: it is counted, and the policy stays.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from recipe.spo.metrics import step_metrics

logger = logging.getLogger(__name__)

#: Seconds of waiting between two words about it.
WORD_EVERY = 60.0
#: Tag of a prompt's key: the counts of its tree.
COUNTS_TAG = "spo_counts"
#: Tag of a prompt's key: why its rollout failed.
ERROR_TAG = "spo_error"


class NoTrainableRows(Exception):
    """A step whose prompts left no row: nothing to train on, and nothing wrong.

    Attributes:
        prompts: the step's prompts, still in the queue, for the trainer to clear.
        metrics: the step's `spo/*` metrics.
    """

    def __init__(self, prompts: KVBatchMeta, metrics: dict[str, Any]) -> None:
        super().__init__("no segment of this step's trees carries signal")
        self.prompts = prompts
        self.metrics = metrics


class RolloutFailed(RuntimeError):
    """Every prompt of a step failed."""


class RolloutQueue(ReplayBuffer):
    """verl's replay buffer for SPO: waits for the step's prompts, then hands out all their rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sampler_kwargs = kwargs.get("sampler_kwargs") or {}
        # verl polls every 2 s, longer than a whole step of a small model takes.
        kwargs.setdefault("poll_interval", float(sampler_kwargs.get("poll_interval", 0.1)))
        super().__init__(*args, **kwargs)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """Wait until `batch_size` prompts are done and return their rows.

        Args:
            global_steps: the current step.
            partition_id: `train` or `val`; validation is verl's own.
            batch_size: number of prompts.

        Returns:
            The rows, and the step's `spo/*` metrics.

        Raises:
            NoTrainableRows: the prompts are done and left no row; carries the metrics.
            RolloutFailed: not one of the prompts could be rolled out.
        """
        if partition_id != "train":
            return super().sample(global_steps, partition_id, batch_size)
        tags = self._wait_for_prompts(batch_size)
        prompts = {key: tag for key, tag in tags.items() if tag.get("is_prompt")}
        done = [key for key, tag in prompts.items() if tag["status"] in ("finished", "failure")]
        chosen = sorted(done, key=lambda key: prompts[key]["global_steps"])[:batch_size]

        errors = [prompts[key].get(ERROR_TAG, "unknown") for key in chosen if prompts[key]["status"] == "failure"]
        if errors:
            message = (
                f"{len(errors)} of {len(chosen)} rollouts of step {global_steps} failed; the first one: {errors[0]}"
            )
            if len(errors) == len(chosen):
                raise RolloutFailed(message)
            logger.error(message)
        counts = [prompts[key][COUNTS_TAG] for key in chosen if COUNTS_TAG in prompts[key]]
        metrics = step_metrics(counts, failed_prompts=len(errors))

        uids = set(chosen)
        rows = {key: tag for key, tag in tags.items() if key.split("_")[0] in uids and key not in prompts}
        if not rows:
            prompts_meta = KVBatchMeta(partition_id=partition_id, keys=chosen, tags=[prompts[key] for key in chosen])
            raise NoTrainableRows(prompts_meta, metrics)
        tq.kv_clear(keys=chosen, partition_id=partition_id)
        return KVBatchMeta(partition_id=partition_id, keys=list(rows), tags=list(rows.values())), metrics

    def _wait_for_prompts(self, batch_size: int) -> dict[str, dict[str, Any]]:
        last_word = time.monotonic()
        while True:
            tags = (tq.kv_list("train") or {}).get("train", {})
            done = sum(1 for tag in tags.values() if tag.get("status") in ("finished", "failure"))
            if done >= batch_size:
                return tags
            if time.monotonic() - last_word > WORD_EVERY:
                last_word = time.monotonic()
                logger.warning("waiting for rollouts: %d of %d prompts are done", done, batch_size)
            time.sleep(self.poll_interval)
