"""Reading the metrics that verl's `file` tracker wrote: what a run measured, step by step.

A record is `{"step": ..., "data": {...}}`, one a line. The tracker empties its file when a run starts,
so a run that was resumed has one file a start; their records in order are one log (`history`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCURACY = re.compile(r"val-core/(?P<source>.+)/acc/mean@(?P<samples>\d+)")
VALIDATION = "val-"
SUMMED = (
    "questions",
    "segments",
    "trained_rows",
    "generated_tokens",
    "trained_tokens",
    "skipped_updates",
    "failed_questions",
)

#: step -> metrics of that step
History = dict[int, dict[str, Any]]


class LogError(ValueError):
    """A log cannot be read or does not hold what is asked of it; the message names the file or metric."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A run as series over training steps; accuracies are fractions in [0, 1].

    Attributes:
        accuracy: validation accuracy (mean@n, the first data source) by step, step 0 included.
        root_value: mean reward of the responses sampled in a step, by step.
        totals: sums over the run of `spo/generated_tokens`, `spo/trained_tokens`, `spo/questions`, ...
    """

    accuracy: dict[int, float]
    root_value: dict[int, float]
    totals: dict[str, float]

    @property
    def steps(self) -> int:
        return max(self.root_value, default=0)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a log; an unfinished last line is left out, and a file that is not there yet is empty.

    Args:
        path: file of verl's `file` tracker.

    Returns:
        The records in the order of the file.

    Raises:
        LogError: a line is not a record; the message names the file and the line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise LogError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict) or type(record.get("step")) is not int or not isinstance(record.get("data"), dict):
        raise LogError(f'{where}: not a record of verl\'s file tracker, {{"step": number, "data": {{...}}}}')
    return record


def history(records: Iterable[Mapping[str, Any]]) -> History:
    """Order records by step; where a resumed run went back to a step, what it undid is left out.

    A record of step s says that whatever was logged after s did not count. It replaces what was logged
    for s, unless it holds a validation alone: a resumed run validates first, at a step already trained.

    Args:
        records: tracker records in the order in which they were written.

    Returns:
        The metrics of each step that counts.
    """
    kept: History = {}
    last = -1
    for record in records:
        step, data = record["step"], record["data"]
        if step < last:
            kept = {earlier: metrics for earlier, metrics in kept.items() if earlier <= step}
        kept[step] = dict(data) if _trained(data) else {**kept.get(step, {}), **data}
        last = step
    return kept


def _trained(data: Mapping[str, Any]) -> bool:
    return any(not name.startswith(VALIDATION) for name in data)


def accuracies(run: History) -> dict[str, dict[int, float]]:
    """Find the validation accuracies.

    Args:
        run: a run's metrics by step.

    Returns:
        data source -> step -> accuracy (`val-core/SOURCE/acc/mean@N`, the largest N), sources in the
        order of the log; an accuracy that is not a number was not measured and is left out.
    """
    found: dict[str, dict[int, tuple[int, float]]] = {}
    for step, data in run.items():
        for name, value in data.items():
            match = ACCURACY.fullmatch(name)
            if match is None or not _is_number(value):
                continue
            source, samples = match["source"], int(match["samples"])
            by_step = found.setdefault(source, {})
            by_step[step] = max(by_step.get(step, (0, 0.0)), (samples, float(value)))
    return {
        source: {step: accuracy for step, (_, accuracy) in sorted(by_step.items())} for source, by_step in found.items()
    }


def cumulative(run: History, metric: str) -> dict[int, float]:
    """Add a metric up over the training steps.

    Args:
        run: a run's metrics by step.
        metric: name of a metric that every training step logs.

    Returns:
        Each step's sum over the steps up to and including it; 0 at step 0.

    Raises:
        LogError: steps are missing, or a step lacks the metric: the sum would be too small.
    """
    trained = {step: data for step, data in run.items() if _trained(data)}
    absent = [step for step in range(1, max(run, default=0) + 1) if step not in trained]
    if absent:
        raise LogError(
            f"training steps {_ranges(absent)} are not in the log, so {metric} cannot be added up; "
            "a resumed run is given with all its files: LABEL=first.jsonl,resumed.jsonl"
        )
    lacking = [step for step, data in trained.items() if step > 0 and not _is_number(data.get(metric))]
    if lacking:
        raise LogError(f"training steps {_ranges(lacking)} did not log {metric}")
    sums, total = {0: 0.0}, 0.0
    for step in sorted(step for step in trained if step > 0):
        total += float(trained[step][metric])
        sums[step] = total
    return sums


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _ranges(steps: Sequence[int]) -> str:
    """`[1, 2, 3, 7]` as `1-3, 7`."""
    parts: list[list[int]] = []
    for step in sorted(steps):
        if parts and step == parts[-1][1] + 1:
            parts[-1][1] = step
        else:
            parts.append([step, step])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def curves(records: Iterable[Mapping[str, Any]]) -> Curves:
    """Pick the series of one run out of tracker records.

    Args:
        records: tracker records in the order in which they were written.

    Returns:
        Accuracy of the first data source, sampled reward, and sums over the steps that count.
    """
    run = history(records)
    accuracy = next(iter(accuracies(run).values()), {})
    root_value = {step: float(data["spo/root_value"]) for step, data in run.items() if "spo/root_value" in data}
    totals = {name: sum(float(data.get(f"spo/{name}", 0)) for data in run.values()) for name in SUMMED}
    return Curves(accuracy, root_value, totals)
