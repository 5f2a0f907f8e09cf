"""The folders of the bench.

    OUT/starts/VARIANT/                       data, policy, and start.json: what they were made with
    OUT/PHASE/VARIANT/METHOD/seedN[/lrRATE]/  run.json, metrics.jsonl, train.log
    OUT/rates.json                            the learning rate of each method, and why

`run.json` is written when a run begins and again when it ends, at once or not at all. A run is finished where it says
so; anything else in its place is done anew.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.learning.errors import LearningError
from recipe.spo.evaluation.store import refuse_other
from recipe.spo.json_files import JsonError, read_json, write_json
from recipe.spo.run_record import versions

RECORD, METRICS, LOG = "run.json", "metrics.jsonl", "train.log"
REPOSITORY = Path(__file__).parents[2]


def read_record(folder: Path) -> dict[str, Any] | None:
    """A run's `run.json`; None where there is none.

    Raises:
        LearningError: it cannot be read.
    """
    try:
        record = read_json(folder / RECORD)
    except (JsonError, OSError) as error:
        raise LearningError(str(error)) from None
    if record is not None and not (isinstance(record, dict) and isinstance(record.get("settings"), dict)):
        raise LearningError(f"{folder / RECORD} is not the record of a run: delete {folder}")
    return record


def is_finished(record: Mapping[str, Any] | None) -> bool:
    """Whether a run came to its end as it should."""
    return record is not None and record.get("exit_status") == 0 and record.get("problem") == ""


def finished_run(folder: Path) -> dict[str, Any] | None:
    """The record of the finished run in a folder; None where the folder is free for one.

    Raises:
        LearningError: it holds something else, or cannot be read.
    """
    record = read_record(folder)
    if record is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LearningError(f"{folder} holds no run: move it away, or choose another --out")
    return record if is_finished(record) else None


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether this very run is finished.

    Raises:
        LearningError: the folder holds something else, or cannot be read.
        EvaluationError: it holds a finished run of other settings.
    """
    record = finished_run(folder)
    if record is not None:
        remedy = f"delete {folder}, or choose another --out or --method label"
        refuse_other(record["settings"], settings, f"{folder} holds a finished run of other settings", remedy)
    return record is not None


def begin(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make a run's folder, over an unfinished run if there is one.

    Returns:
        Its record, for `end`.

    Raises:
        LearningError: the folder cannot be written.
    """
    record = {"settings": dict(settings), **facts(), "started": now()}
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, record)
    except OSError as error:
        raise LearningError(f"{folder} cannot be written: {error.strerror or error}") from None
    return record


def end(folder: Path, record: Mapping[str, Any], **outcome: Any) -> None:
    """Write down how a run ended.

    Raises:
        LearningError: it cannot be written.
    """
    try:
        write_json(folder / RECORD, {**record, "finished": now(), **outcome})
    except OSError as error:
        raise LearningError(f"{folder / RECORD} cannot be written: {error.strerror or error}") from None


def facts() -> dict[str, Any]:
    """Commit, versions and hardware of this process."""
    return {"commit": commit(), "versions": versions(), "hardware": hardware()}


def commit() -> str | None:
    """The repository's commit, `-dirty` where files have changed; None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, and how busy the machine is."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {"processor": name, "cores": cores, "memory_gib": memory, "load_at_start": round(os.getloadavg()[0], 2)}


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
