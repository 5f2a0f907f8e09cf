"""The checkpoints of a run: which is the best, which may go, and what is written beside verl's parts.

    FOLDER/run.yaml, spo_run.json                what the run is (recipe.spo.run_record)
    FOLDER/latest_checkpointed_iteration.txt     verl: number of the last complete checkpoint
    FOLDER/best.json                             the best one: step, metric, value, and how it was chosen
    FOLDER/global_step_N/                        verl's parts, and
        spo_step.json                            the run so far: id, totals, validations
        spo_validation.json                      what the validation after step N measured

The best is the highest among the checkpoints that were validated: those of steps that both
trainer.save_freq and trainer.test_freq divide, and of the last step. Of equal ones it is the earliest.

verl's own deletion is not used: it keeps no best, forgets with each start what was saved before it,
and leaves a shell. Only checkpoints of the run itself are ever deleted, by the id that they carry.

Pure but for files: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
import re
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.spo.json_files import read_json, write_json

TRACKER, BEST, STEP, VALIDATION = (
    "latest_checkpointed_iteration.txt",
    "best.json",
    "spo_step.json",
    "spo_validation.json",
)
_FOLDER = re.compile(r"global_step_(\d+)")
_DELETED = ".deleted_"
_MEAN = re.compile(r"val-core/.+/(acc|reward)/mean@\d+")
#: Sums of a step's metrics that a checkpoint carries on.
TOTALS = ("questions", "generated_tokens", "trained_rows", "trained_tokens")


class CheckpointError(ValueError):
    """A folder of checkpoints does not hold what it should; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A folder `global_step_N`.

    Attributes:
        step: N.
        folder: where it is.
        run: id of the run that saved it; None where this package did not.
        validation: metrics that validation measured after that step; None where it was not validated.
    """

    step: int
    folder: Path
    run: str | None
    validation: Mapping[str, float] | None


def saved_steps(root: Path) -> list[Saved]:
    """The checkpoints in a folder by step, complete or not."""
    if not root.is_dir():
        return []
    found = []
    for folder in root.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        run, validation = read_json(folder / STEP), read_json(folder / VALIDATION)
        found.append(
            Saved(int(match[1]), folder, (run or {}).get("run"), None if validation is None else validation["metrics"])
        )
    return sorted(found, key=lambda saved: saved.step)


def latest_step(root: Path) -> int | None:
    """The step that a run in this folder resumes from; None if there is none.

    Raises:
        CheckpointError: the tracker file cannot be read, or what it names is not there.
    """
    tracker = root / TRACKER
    if not tracker.exists():
        return None
    remedy = "write the number of the last complete checkpoint into it, or delete it to start anew"
    text = tracker.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdigit():
        raise CheckpointError(f"{tracker} holds {text[:20]!r} and not a step: {remedy}")
    if not (root / f"global_step_{text}").is_dir():
        raise CheckpointError(f"{tracker} names step {text}, but there is no global_step_{text} beside it: {remedy}")
    return int(text)


def score(validation: Mapping[str, float], keep_best: str | bool) -> tuple[str, float]:
    """What a checkpoint is judged by.

    Args:
        validation: metrics of a validation.
        keep_best: name of one of them, or True: the mean over the data sources of their mean accuracy.

    Returns:
        The metric's name, or the names, and its value.

    Raises:
        CheckpointError: it was not measured.
    """
    names = [keep_best] if isinstance(keep_best, str) else sorted(filter(_MEAN.fullmatch, validation))
    values = [validation[name] for name in names if name in validation and math.isfinite(validation[name])]
    if not names or len(values) < len(names):
        wanted = keep_best if isinstance(keep_best, str) else "val-core/SOURCE/acc/mean@N"
        there = ", ".join(sorted(validation)) or "nothing"
        raise CheckpointError(
            f"algorithm.spo.keep_best: validation did not measure {wanted}; it measured {there}. Name one of these, "
            "or set algorithm.spo.keep_best=null"
        )
    return ", ".join(names), sum(values) / len(values)


def best_step(scores: Mapping[int, float]) -> int | None:
    """The step with the highest score, the earliest of equal ones; None without any."""
    return min(scores, key=lambda step: (-scores[step], step), default=None)


def steps_to_delete(own: Collection[int], latest: int, best: int | None, newest: int | None) -> list[int]:
    """Which checkpoints a run no longer needs.

    Args:
        own: steps of the checkpoints that the run has saved, in this life or an earlier one.
        latest: the last complete one. Later ones are unfinished, or of a future that the user went back from.
        best: the best one.
        newest: how many of the newest to keep; None keeps all.

    Returns:
        Steps to delete; never the latest, the best, nor a later one than the latest.
    """
    if newest is None:
        return []
    past = sorted(step for step in own if step <= latest)
    kept = {*past[max(0, len(past) - newest) :], latest, best}
    return [step for step in past if step not in kept]


class Checkpoints:
    """A run's checkpoints while it trains. The driver calls it; nothing of it runs in a worker.

    Args:
        root: `trainer.default_local_dir`.
        newest: how many of the newest to keep; None keeps all.
        keep_best: `algorithm.spo.keep_best`; None keeps no best one.
    """

    def __init__(self, root: Path, newest: int | None, keep_best: str | bool | None) -> None:
        self.root, self.newest, self.keep_best = root, newest, keep_best
        self.run, self.latest = uuid.uuid4().hex[:12], None
        self.totals: dict[str, float] = dict.fromkeys(TOTALS, 0)
        self.counted_from, self.validations = 1, {}

    def resumed(self, step: int, folder: Path) -> None:
        """Go on from a checkpoint: with its run's id, totals and validations."""
        before = read_json(folder / STEP)
        self.counted_from = step + 1
        if before is not None:
            self.run, self.counted_from = before["run"], before["counted_from"]
            self.totals = {name: before["totals"].get(name, 0) for name in TOTALS}
            self.validations = {int(at): measured for at, measured in before["validations"].items()}
        last = read_json(folder / VALIDATION)
        if last is not None:
            self.validations[step] = _core(last["metrics"], last["problems"])
        if folder.resolve() == (self.root / f"global_step_{step}").resolve():
            self.latest = step
            self._tidy()

    def count(self, metrics: Mapping[str, Any]) -> None:
        """Add a training step's `spo/*` metrics to the totals."""
        for name in TOTALS:
            self.totals[name] += metrics.get(f"spo/{name}", 0)

    def saving(self, step: int) -> None:
        """Before verl writes the checkpoint of a step: write down the run so far."""
        folder = self.root / f"global_step_{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VALIDATION).unlink(missing_ok=True)  # of what is about to be written over
        content = {"run": self.run, "step": step, "counted_from": self.counted_from, "totals": self.totals}
        write_json(folder / STEP, {**content, "validations": self.validations})

    def saved(self, step: int) -> None:
        """After verl has completed the checkpoint of a step."""
        self.latest = step
        self._tidy()

    def validated(self, step: int, metrics: Mapping[str, Any], problems: Mapping[str, int]) -> None:
        """After a validation.

        Args:
            step: the step that it follows, 0 before training.
            metrics: what it measured.
            problems: how many problems there were of each data source.

        Raises:
            CheckpointError: `keep_best` names a metric that is not among them.
        """
        numbers = {name: float(value) for name, value in metrics.items() if _is_finite(value)}
        if self.keep_best is not None:
            score(numbers, self.keep_best)
        self.validations.setdefault(step, _core(numbers, problems))
        folder = self.root / f"global_step_{step}"
        # A resumed run validates again what it was resumed from: the first measurement counts.
        if step != self.latest or (folder / VALIDATION).exists():
            return
        write_json(folder / VALIDATION, {"step": step, "metrics": numbers, "problems": dict(problems)})
        self._tidy()

    def _tidy(self) -> None:
        """Write down which checkpoint is the best, then delete what is not needed."""
        own = {
            saved.step: saved
            for saved in saved_steps(self.root)
            if saved.run == self.run and self.latest is not None and saved.step <= self.latest
        }
        best = self._write_best(own)
        for step in steps_to_delete(own, self.latest, best, self.newest):
            # A name that nothing takes for a checkpoint, lest a run that is killed here leaves half of one.
            own[step].folder.rename(self.root / f"{_DELETED}{own[step].folder.name}")
        for left in self.root.glob(f"{_DELETED}global_step_*"):
            try:
                shutil.rmtree(left)
            except OSError as error:  # no reason to end a training; the next save tries again
                print(f"warning: {left} could not be deleted: {error.strerror or error}", flush=True)

    def _write_best(self, own: Mapping[int, Saved]) -> int | None:
        if self.keep_best is None:
            return None
        scores = {
            step: score(saved.validation, self.keep_best) for step, saved in own.items() if saved.validation is not None
        }
        best = best_step({step: value for step, (_, value) in scores.items()})
        if best is None:
            (self.root / BEST).unlink(missing_ok=True)  # of a run before this one
            return None
        metric, value = scores[best]
        content = {"step": best, "metric": metric, "value": value, "run": self.run}
        write_json(
            self.root / BEST,
            {**content, "chosen_among": {str(step): value for step, (_, value) in sorted(scores.items())}},
        )
        return best


def _core(metrics: Mapping[str, float], problems: Mapping[str, int]) -> dict[str, Any]:
    core = {name: value for name, value in metrics.items() if name.startswith("val-core/")}
    return {"metrics": core, "problems": dict(problems)}


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
