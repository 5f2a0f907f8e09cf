"""The benchmark of dumping: what it reads of a log, and its last line."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.dump_cost import main, read_run
from recipe.spo.training_log import LogError


def log(path, *records):
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in enumerate(records)))
    return path


def step(seconds: float, **more: float) -> dict:
    return {"spo/questions": 24, "timing_s/step": seconds, **more}


def test_a_step_is_counted_without_its_validation(tmp_path):
    validated = step(10.0, **{"timing_s/testing": 6.0, "spo/dump/seconds": 0.5})
    run = read_run(log(tmp_path / "m.jsonl", {"val-core/s/acc/mean@1": 0.5}, step(2.0), validated))
    assert (run.step_seconds, run.questions, run.dump_seconds) == (3.0, 24, 0.5)


def test_a_log_without_steps_is_refused(tmp_path):
    with pytest.raises(LogError, match="has no training step"):
        read_run(log(tmp_path / "m.jsonl", {"val-core/s/acc/mean@1": 0.5}))


def test_the_last_line_is_the_limit_over_the_cost(tmp_path, model, capsys):
    file = log(tmp_path / "m.jsonl", {}, step(1000.0))
    small = ("--branch-factors", "2", "2", "--segment-length", "3", "--last-length", "4")
    assert main(["--log", str(file), "--model", model, *small]) == 0
    shown = capsys.readouterr().out
    assert re.fullmatch(r"ratio: \d+\.\d\d", shown.splitlines()[-1])
    assert float(shown.split("ratio: ")[1]) > 1 and "22 tokens a tree" in shown
