"""A small copy of a bench for a repository: the same folders, with what the report is made of and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning.errors import LearningError
from benchmarks.learning.plan import PHASES
from benchmarks.learning.rates import RATES, read_rates
from benchmarks.learning.results import gather
from benchmarks.learning.store import METRICS, RECORD
from recipe.spo.json_files import write_json, write_text
from recipe.spo.training_log import ACCURACY, History

#: Metrics of a step that are kept, beside validation accuracy.
KEPT = (
    "spo/generated_tokens",
    "spo/trained_tokens",
    "spo/trained_rows",
    "spo/questions",
    "spo/failed_questions",
    "spo/optimizer_steps",
    "spo/skipped_updates",
    "spo/root_value",
    "spo/zero_advantage_share",
    "spo/unfinished_leaf_share",
    "timing_s/step",
    "timing_s/testing",
    "actor/lr",
    "actor/grad_norm",
    "actor/pg_clipfrac",
    "actor/ppo_kl",
    "critic/vf_loss",
)
DIGITS = 6


def publish(out: Path, target: Path) -> int:
    """Copy the finished runs; runs that were published before and are no more in `out` are removed.

    Args:
        out: folder of the bench.
        target: folder to write to.

    Returns:
        How many runs there were.

    Raises:
        LearningError: a folder cannot be read or written, or no run is finished.
    """
    if target.resolve() == out.resolve():
        raise LearningError(f"--publish {target} is the folder of the bench itself: choose another")
    results = [result for phase in PHASES for result in gather(out, phase)[0]]
    if not results:
        raise LearningError(f"--out {out} holds no finished run: nothing to publish")
    kept = {target / result.folder.relative_to(out) for result in results}
    try:
        for record in (path for phase in PHASES for path in (target / phase).rglob(RECORD)):
            if record.parent not in kept:
                for name in (METRICS, RECORD):
                    (record.parent / name).unlink(missing_ok=True)
        for result in results:
            folder = target / result.folder.relative_to(out)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / METRICS, compact_log(result.run.steps))
            write_json(folder / RECORD, result.record)
        if (out / RATES).exists():
            write_json(target / RATES, read_rates(out / RATES))
    except OSError as error:
        raise LearningError(f"--publish {target} cannot be written: {error}") from None
    return len(results)


def compact_log(steps: History) -> str:
    """A run's log in the same format, with the metrics of `KEPT` and accuracies, in six digits."""
    return "".join(json.dumps({"step": step, "data": _kept(data)}) + "\n" for step, data in sorted(steps.items()))


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    names = [*filter(ACCURACY.fullmatch, data), *(name for name in KEPT if name in data)]
    return {name: float(f"{data[name]:.{DIGITS}g}") if isinstance(data[name], float) else data[name] for name in names}
