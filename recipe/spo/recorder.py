"""What a rollout worker writes about a question: what was sampled, and what came of each token.

A record says everything that a viewer shows, so that it needs neither the tokenizer nor the run's
settings: texts beside token ids, and with every segment of a tree (every response of a chain) its
advantage, its mask, and whether it became a training row.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recipe.spo.advantage import Sample
from recipe.spo.chain import ChainRollout
from recipe.spo.dump import CHAINS, TREES, Dump, node_record
from recipe.spo.metrics import Counts
from recipe.spo.rows import Selection, probability_mask
from recipe.spo.settings import DumpSampleSettings, SPOSettings
from recipe.spo.token_texts import TokenTexts
from recipe.spo.tree import Node

#: Version of the records; a viewer refuses others.
FORMAT = 1


def choose(step: int, questions: int, sample: DumpSampleSettings | None, seed: int) -> list[bool]:
    """Which questions of a step are dumped: it depends on the arguments alone.

    Args:
        step: the training step, counted from 1.
        questions: of the step.
        sample: `algorithm.spo.dump_sample`; `None` takes all.
        seed: `data.seed`.

    Returns:
        One truth value a question, in the order of the batch.
    """
    if sample is None:
        return [True] * questions
    if (step - 1) % sample.every_steps:
        return [False] * questions
    drawn = random.Random(f"dump/{seed}/{step}").sample(range(questions), min(sample.questions, questions))
    return [position in drawn for position in range(questions)]


class Recorder:
    """Writes a question's record into the dump folder, and counts what it wrote and left out.

    Args:
        settings: with `dump_dir` set.
        decode: the tokenizer's.
    """

    def __init__(self, settings: SPOSettings, decode: Callable[[Sequence[int]], str]) -> None:
        self.settings = settings
        limit = settings.dump_sample.max_mib if settings.dump_sample else None
        self.dump = Dump(settings.dump_dir, None if limit is None else int(limit * 2**20))
        self.texts = TokenTexts(decode)

    def record(
        self,
        prompt: Mapping[str, Any],
        prompt_ids: Sequence[int],
        rollout: Node | ChainRollout,
        samples: Sequence[Sample],
        selection: Selection,
        chosen: bool,
    ) -> Counts:
        """Write a question that was chosen.

        Args:
            prompt: its columns, as verl sends them.
            prompt_ids: its tokens.
            rollout: with rewards and values.
            samples: with their advantages.
            selection: the rows that came of them.
            chosen: whether it is to be dumped.

        Returns:
            Counts for `recipe.spo.metrics.step_metrics`.
        """
        started = time.perf_counter()
        written = chosen and self._write(prompt, prompt_ids, rollout, samples, selection)
        return {
            "dumped": int(written),
            "dump_not_sampled": int(not chosen),
            "dump_over_limit": int(chosen and not written),
            "dump_seconds": time.perf_counter() - started,
        }

    def _write(
        self,
        prompt: Mapping[str, Any],
        prompt_ids: Sequence[int],
        rollout: Node | ChainRollout,
        samples: Sequence[Sample],
        selection: Selection,
    ) -> bool:
        credits = self._credits(samples, selection)
        truth = (prompt.get("reward_model") or {}).get("ground_truth")
        record = {
            "format": FORMAT,
            "uid": prompt["uid"],
            "step": int(prompt["global_steps"]),
            "index": str(prompt["index"]),
            "method": self.settings.method,
            "mask_threshold": self.settings.mask_threshold,
            "truth": None if truth is None else str(truth),
            "prompt_ids": list(prompt_ids),
            "prompt_texts": self.texts.of(prompt_ids),
        }
        if isinstance(rollout, ChainRollout):
            return self.dump.write(CHAINS, [{**record, **self._chain(rollout, credits)}])
        return self.dump.write(TREES, [{**record, "root": self._node(rollout, (), credits)}])

    def _credits(self, samples: Sequence[Sample], selection: Selection) -> dict[tuple[int, ...], dict[str, Any]]:
        """Advantages, mask and whether it is a row, by path; None for what the trainer alone knows."""
        rows = {row.path for row in selection.rows}
        return {
            sample.path: {
                "advantages": None if self.settings.credit is None else list(sample.advantages),
                "mask": None
                if self.settings.trainer_masks
                else probability_mask(sample.log_probs, self.settings.rollout_mask_threshold),
                "row": sample.path in rows,
            }
            for sample in samples
        }

    def _node(self, node: Node, path: tuple[int, ...], credits: Mapping[tuple[int, ...], Any]) -> dict[str, Any]:
        return {
            **node_record(node),
            "texts": self.texts.of(node.token_ids),
            **credits.get(path, {}),
            "children": [self._node(child, (*path, index), credits) for index, child in enumerate(node.children)],
        }

    def _chain(self, rollout: ChainRollout, credits: Mapping[tuple[int, ...], Any]) -> dict[str, Any]:
        values = rollout.values()
        return {
            "trajectories": [
                {"response": self._node(trajectory.response, (index,), credits), "cuts": trajectory.cuts}
                for index, trajectory in enumerate(rollout.trajectories)
            ],
            "continuations": [
                {
                    "state": list(state),
                    "value": values[state],
                    "samples": [self._node(sample, (-1,), {}) for sample in samples],
                }
                for state, samples in rollout.continuations.items()
            ],
        }


def recorder_of(settings: SPOSettings, decode: Callable[[Sequence[int]], str]) -> Recorder | None:
    """A worker's recorder; `None` without `algorithm.spo.dump_dir`, so that nothing of this module is called then."""
    return Recorder(settings, decode) if settings.dump_dir else None
