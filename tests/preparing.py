"""What the tests of the preparation commands share: running one in this process, and small sources."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.errors import run
from data_prep.writer import read_split
from tests.conftest import REPOSITORY

REAL_DATA = Path(os.environ.get("SPO_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
needs_real_data = pytest.mark.skipif(
    not (REAL_DATA / "gsm8k_train.jsonl").is_file(), reason="the real data files are not here"
)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_here(module: types.ModuleType, *options: object) -> Done:
    """Run a command as `python -m` does, but without a new process for it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(lambda: module.main([str(option) for option in options]))
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(out: Path, split: str) -> list[str]:
    return [row["extra_info"]["question"] for row in read_split(out, split)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_refused(done: Done, message: str, out: Path) -> None:
    """One line that says what is wrong, exit status 2, and nothing written."""
    assert message in done.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not out.exists()


def stub_hub(monkeypatch, sets: Mapping[tuple[str, ...], Mapping[str, list]], commit: str | None = None) -> None:
    """Have `datasets.load_dataset` give these data sets, and no route to the hub for others."""

    class Split(list):
        info = types.SimpleNamespace(download_checksums={f"hf://datasets/a/b@{commit}/train.parquet": {}})

    def load_dataset(*name, revision=None):
        if name not in sets:
            raise ConnectionError("no route\nto host")
        return {split: Split(rows) for split, rows in sets[name].items()}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
