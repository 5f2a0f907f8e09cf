"""A small copy of a bench for a repository: the same folders, with what the report is made of, the start policies, and
no more. `adopt` is the way back: a bench goes on on another machine, from the very policies that it began with. Fitting
them anew will not do there: processors round differently, and after some hundred steps that is another policy.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning.errors import LearningError
from benchmarks.learning.plan import PHASES
from benchmarks.learning.rates import RATES, read_rates
from benchmarks.learning.results import gather
from benchmarks.learning.starts import MADE_WITH, POLICY, STARTS, WEIGHTS
from benchmarks.learning.store import METRICS, RECORD, finished_run
from recipe.spo.json_files import read_json, write_json, write_text
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
        for start in _starts(out):
            copy = target / start.relative_to(out)
            _copy_folder(start / POLICY, copy / POLICY)
            write_json(copy / MADE_WITH, read_json(start / MADE_WITH))
    except OSError as error:
        raise LearningError(f"--publish {target} cannot be written: {error}") from None
    return len(results)


def adopt(source: Path, out: Path) -> int:
    """Take what was published and is not in the bench: finished runs, learning rates, start policies.

    Args:
        source: folder that `publish` wrote.
        out: folder of the bench.

    Returns:
        How many runs were taken.

    Raises:
        LearningError: there is nothing to take, the bench has other start policies, or a folder cannot be used.
        EvaluationError: published runs cannot be compared with one another.
    """
    if source.resolve() == out.resolve():
        raise LearningError(f"--from {source} is the folder of the bench itself: choose another")
    results = [result for phase in PHASES for result in gather(source, phase)[0]]
    starts = {start: out / start.relative_to(source) for start in _starts(source)}
    if not results and not starts:
        raise LearningError(f"--from {source} holds no published run and no start policy: give a folder of --publish")
    try:
        for start, own in starts.items():
            if own.exists() and not filecmp.cmp(own / WEIGHTS, start / WEIGHTS, shallow=False):
                raise LearningError(f"{own} is another start policy than {start}: choose another --out")
        for start, own in starts.items():
            if not own.exists():
                _copy_folder(start, own)
        missing = [run.folder for run in results if finished_run(out / run.folder.relative_to(source)) is None]
        for folder in missing:
            _copy_folder(folder, out / folder.relative_to(source))
        if (source / RATES).exists():
            rates = read_rates(out / RATES) if (out / RATES).exists() else {}
            write_json(out / RATES, read_rates(source / RATES) | rates)
    except OSError as error:
        raise LearningError(f"--from {source} cannot be taken: {error}") from None
    return len(missing)


def _starts(folder: Path) -> list[Path]:
    """Folders of the starts that a bench, or its copy, has."""
    return [path.parent for path in sorted((folder / STARTS).glob(f"*/{MADE_WITH}"))]


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder to where none is, or an unfinished run: whole, or not at all."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, partial, copy_function=shutil.copyfile)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def compact_log(steps: History) -> str:
    """A run's log in the same format, with the metrics of `KEPT` and accuracies, in six digits."""
    return "".join(json.dumps({"step": step, "data": _kept(data)}) + "\n" for step, data in sorted(steps.items()))


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    names = [*filter(ACCURACY.fullmatch, data), *(name for name in KEPT if name in data)]
    return {name: float(f"{data[name]:.{DIGITS}g}") if isinstance(data[name], float) else data[name] for name in names}
