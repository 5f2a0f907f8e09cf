"""Which rows a training step gets, and the counts of all its rollouts.

Comes in through verl's `trainer.v1.sampler.custom_sampler`. Waits for the step's prompts, and lets
`recipe.spo.replay` choose among their rows and those that earlier steps left. verl's own replay
buffer refuses a step whose prompts left no row; here such a step is normal: it is counted, and
trains left-over rows or, if there are none, nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from recipe.spo.metrics import step_metrics
from recipe.spo.replay import Candidate, age_counts, choose_rows
from recipe.spo.settings import ReplaySettings

logger = logging.getLogger(__name__)

#: Seconds of waiting between two words about it.
WORD_EVERY = 60.0
#: Tag of a prompt's key: the counts of its rollout.
COUNTS_TAG = "spo_counts"
#: Tag of a prompt's key: why its rollout failed.
ERROR_TAG = "spo_error"
#: Tags of a row: its question's identity, its own within the rollout, a digest of its tokens.
QUESTION_TAG, PATH_TAG, CONTENT_TAG = "question", "path", "content"


class NoTrainableRows(Exception):
    """A step whose prompts left no row: nothing to train on, and nothing wrong.

    Attributes:
        prompts: the step's prompts, still in the queue, for the trainer to clear.
        metrics: the step's `spo/*` metrics.
    """

    def __init__(self, prompts: KVBatchMeta, metrics: dict[str, Any]) -> None:
        super().__init__("no row of this step carries signal, and none was left over")
        self.prompts = prompts
        self.metrics = metrics


class RolloutFailed(RuntimeError):
    """Every prompt of a step failed."""


class RolloutQueue(ReplayBuffer):
    """verl's replay buffer for SPO: waits for the step's prompts, then hands out the rows that train.

    `trainer.v1.sampler.sampler_kwargs` carries `replay` (`algorithm.spo.replay`) and `seed`.

    Attributes:
        kept: keys of the rows that wait for a later step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        options = kwargs.get("sampler_kwargs") or {}
        # verl polls every 2 s, longer than a whole step of a small model takes.
        kwargs.setdefault("poll_interval", float(options.get("poll_interval", 0.1)))
        super().__init__(*args, **kwargs)
        self.replay = ReplaySettings(**options["replay"])
        self.seed = int(options["seed"])
        self.kept: list[str] = []

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """Wait until `batch_size` prompts are done and return the rows that train.

        Args:
            global_steps: the current step.
            partition_id: `train` or `val`; validation is verl's own.
            batch_size: number of prompts.

        Returns:
            The rows, and the step's `spo/*` metrics.

        Raises:
            NoTrainableRows: the prompts are done and there is no row to train; carries the metrics.
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
        metrics = step_metrics(counts, failed_questions=len(errors))

        rows = {key: tag for key, tag in tags.items() if not tag.get("is_prompt")}
        choice = choose_rows(
            (
                Candidate(tag["global_steps"], tag[QUESTION_TAG], tag[PATH_TAG], tag[CONTENT_TAG], key)
                for key, tag in rows.items()
            ),
            step=global_steps,
            settings=self.replay,
            seed=self.seed,
        )
        self.kept = [candidate.key for candidate in choice.kept]
        metrics["spo/replay/taken_rows"] = len(choice.taken)
        metrics["spo/replay/kept_rows"] = len(choice.kept)
        metrics["spo/replay/expired_rows"] = len(choice.expired)
        for age, count in sorted(age_counts(choice.taken, global_steps).items()):
            metrics[f"spo/replay/rows_of_age_{age}"] = count
        if choice.expired:
            tq.kv_clear(keys=[candidate.key for candidate in choice.expired], partition_id=partition_id)
        if not choice.taken:
            prompts_meta = KVBatchMeta(partition_id=partition_id, keys=chosen, tags=[prompts[key] for key in chosen])
            raise NoTrainableRows(prompts_meta, metrics)
        tq.kv_clear(keys=chosen, partition_id=partition_id)
        keys = [candidate.key for candidate in choice.taken]
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[rows[key] for key in keys]), metrics

    def _wait_for_prompts(self, batch_size: int) -> dict[str, dict[str, Any]]:
        started = last_word = time.monotonic()
        while True:
            tags = (tq.kv_list("train") or {}).get("train", {})
            done = sum(1 for tag in tags.values() if tag.get("status") in ("finished", "failure"))
            if done >= batch_size:
                return tags
            if time.monotonic() - last_word > WORD_EVERY:
                started = last_word = time.monotonic()
                logger.warning("waiting for rollouts: %d of %d prompts are done", done, batch_size)
            # A long wait is looked at less often: each look ships the tags of all rows.
            time.sleep(max(self.poll_interval, min(2.0, 0.05 * (time.monotonic() - started))))
