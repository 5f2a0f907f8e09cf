"""A small copy of a bench for a repository: the same folders, with what the report is made of, the start policies, and
no more. `adopt` is the way back: a bench goes on on another machine, from the very policies that it began with. Fitting
them anew will not do there: processors round differently, and after some hundred steps that is another policy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning.errors import LearningError
from benchmarks.learning.plan import PHASES
from benchmarks.learning.rates import RATES, read_rates
from benchmarks.learning.results import gather
from benchmarks.learning.starts import POLICY, STARTS
from benchmarks.learning.store import METRICS, RECORD, is_finished, read_record
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
        for policy in sorted((out / STARTS).glob(f"*/{POLICY}")):
            _copy_folder(policy, target / policy.relative_to(out))
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
        LearningError: there is nothing to take, or a folder cannot be read or written.
    """
    if source.resolve() == out.resolve():
        raise LearningError(f"--from {source} is the folder of the bench itself: choose another")
    results = [result for phase in PHASES for result in gather(source, phase)[0]]
    policies = sorted((source / STARTS).glob(f"*/{POLICY}"))
    if not results and not policies:
        raise LearningError(f"--from {source} holds no published run and no start policy: give a folder of --publish")
    taken = 0
    try:
        for policy in policies:
            if not (out / policy.relative_to(source)).exists():
                _copy_folder(policy, out / policy.relative_to(source))
        for result in results:
            folder = out / result.folder.relative_to(source)
            if not is_finished(read_record(folder)):
                _copy_folder(result.folder, folder)
                taken += 1
        if (source / RATES).exists():
            own = read_rates(out / RATES) if (out / RATES).exists() else {}
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / RATES, read_rates(source / RATES) | own)
    except OSError as error:
        raise LearningError(f"--from {source}: {error}") from None
    return taken


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's files, in place of whatever was there; whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial, copy_function=shutil.copyfile)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)


def compact_log(steps: History) -> str:
    """A run's log in the same format, with the metrics of `KEPT` and accuracies, in six digits."""
    return "".join(json.dumps({"step": step, "data": _kept(data)}) + "\n" for step, data in sorted(steps.items()))


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    names = [*filter(ACCURACY.fullmatch, data), *(name for name in KEPT if name in data)]
    return {name: float(f"{data[name]:.{DIGITS}g}") if isinstance(data[name], float) else data[name] for name in names}
