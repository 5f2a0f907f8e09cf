"""Finished runs, read from their folders: from the bench's, or from the small copy that was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.errors import LearningError
from benchmarks.learning.numbers import NumbersError, Points, area, value_at
from benchmarks.learning.plan import TUNE
from benchmarks.learning.store import METRICS, RECORD, is_finished, read_record
from recipe.spo.evaluation.store import refuse_other
from recipe.spo.plots.runs import AXES, Run, points
from recipe.spo.training_log import LogError, accuracies, history, read_records

#: What runs of a variant must have in common to be compared.
COMMON = ("token_budget", "start")


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run.

    Attributes:
        folder: where it is.
        record: its `run.json`.
        run: its log, as the pictures want it.
        source: the data source that it was validated on.
        start: accuracy before training.
        final: accuracy at the budget, between the two validations around it.
        area: mean accuracy from 0 tokens to the budget.
        totals: seconds of training without validation, steps, optimiser steps, tokens.
    """

    folder: Path
    record: Mapping[str, Any]
    run: Run
    source: str
    start: float
    final: float
    area: float
    totals: Mapping[str, float]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.record["settings"]

    @property
    def problems(self) -> int:
        """Of a validation."""
        return int(self.settings["start"]["problems"])

    @property
    def cores(self) -> int:
        """That the run could use; 0 if its record does not say."""
        return int(self.record["hardware"].get("cores") or 0)


def read_result(folder: Path, record: Mapping[str, Any]) -> Result:
    """Read a finished run.

    Raises:
        LearningError: its log does not hold what it should.
    """
    remedy = f"delete {folder} to have it done anew"
    try:
        steps = history(read_records(folder / METRICS))
        accuracy = accuracies(steps)
        if not accuracy:
            raise LogError(f"{folder / METRICS} holds no validation accuracy")
        run = Run(record["settings"]["label"], (folder / METRICS,), steps, accuracy)
        source = next(iter(accuracy))
        budget = float(record["settings"]["token_budget"])
        curve: Points = points(run, source, AXES["tokens"])
        totals = {name: AXES[axis].of_step(steps)[max(steps)] for name, axis in _TOTALS.items()}
        for name in ("generated_tokens", "trained_tokens"):
            totals[name] = sum(data.get(f"spo/{name}", 0) for data in steps.values())
        return Result(folder, record, run, source, curve[0][1], value_at(curve, budget), area(curve, budget), totals)
    except (LogError, NumbersError, KeyError, TypeError, OSError) as error:
        raise LearningError(f"{folder} is not a finished run ({error}): {remedy}") from None


_TOTALS = {"steps": "steps", "optimizer_steps": "optimizer", "training_seconds": "time"}


def gather(out: Path, phase: str) -> tuple[list[Result], list[str]]:
    """Read the runs of a phase.

    Args:
        out: folder of the bench.
        phase: `TUNE` or `MAIN`.

    Returns:
        The finished runs, and a line for each other one.

    Raises:
        LearningError: a folder cannot be read.
        EvaluationError: runs of one variant had different budgets, data or start policies, or seeds of one method
            other settings.
    """
    results, others = [], []
    for path in sorted((out / phase).glob(f"*/*/seed*/{'lr*/' if phase == TUNE else ''}{RECORD}")):
        record = read_record(path.parent)
        if is_finished(record):
            results.append(read_result(path.parent, record))
        else:
            status = record.get("problem") or (
                "interrupted, or still running" if "finished" not in record else "failed"
            )
            others.append(f"{path.parent.relative_to(out)}: {status}")
    check_comparable(results)
    return results, others


def check_comparable(results: Sequence[Result]) -> None:
    """Refuse to compare what was not measured alike, and to average what is not one method.

    Raises:
        EvaluationError: naming two runs, and in what they differ.
    """
    variants: dict[str, Result] = {}
    methods: dict[tuple[str, str], Result] = {}
    for result in results:
        settings = result.settings
        remedy = "delete one, or choose another --out for it"
        other = variants.setdefault(settings["variant"], result)
        found, wanted = ({name: one.settings.get(name) for name in COMMON} for one in (result, other))
        refuse_other(found, wanted, f"{result.folder} cannot be compared with {other.folder}", remedy)
        if settings["phase"] == TUNE:
            continue
        other = methods.setdefault((settings["variant"], settings["label"]), result)
        complaint = f"{result.folder} is not another seed of {other.folder}"
        refuse_other(_own(result), _own(other), complaint, remedy)


def _own(result: Result) -> dict[str, Any]:
    """What a run has in common with its method's other seeds; method and learning rate are in the environment."""
    overrides = dict(each.partition("=")[::2] for each in result.settings["overrides"])
    return result.settings["environment"] | {k: value for k, value in overrides.items() if not k.endswith("seed")}


def by_method(results: Sequence[Result], variant: str) -> dict[str, dict[int, Result]]:
    """Runs of a variant: label -> seed -> run, in the order in which methods were first given."""
    methods: dict[str, dict[int, Result]] = {}
    for result in results:
        if result.settings["variant"] == variant:
            methods.setdefault(result.settings["label"], {})[int(result.settings["seed"])] = result
    return methods
