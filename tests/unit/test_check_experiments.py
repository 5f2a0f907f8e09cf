"""What `make check-experiments` calls a failure."""

from __future__ import annotations

import json
import sys
import time

import pytest
from rich.console import Console

from examples.check_experiments import command, experiment_names, judge, paths
from examples.launch import train

GOOD = {"spo/root_value": 0.5, "spo/trained_rows": 30, "spo/trained_tokens": 99, "spo/generated_tokens": 400}


def judged(tmp_path, *steps: dict, exit_code: int = 0):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": i, "data": data}) + "\n" for i, data in enumerate(steps, 1)))
    return judge("any", log, exit_code, expected=750.4, seconds=1.0, peak_memory_gib=2.0)


def test_two_steps_with_trained_rows_are_good(tmp_path):
    result = judged(tmp_path, GOOD, GOOD)
    assert (result.problem, result.steps, result.rows, result.trained_tokens) == ("", 2, 60, 198)
    assert (result.generated_tokens, result.expected_tokens) == (800, 750)


@pytest.mark.parametrize(
    ("steps", "exit_code", "problem"),
    [
        ([GOOD, GOOD], 3, "exit code 3"),
        ([GOOD], 0, "1 steps instead of 2"),
        ([], 0, "0 steps instead of 2"),
        ([{**GOOD, "spo/trained_rows": 0}] * 2, 0, "trained 0 rows, 198 tokens"),
        ([{**GOOD, "spo/trained_tokens": 0}] * 2, 0, "trained 60 rows, 0 tokens"),
        ([{**GOOD, "spo/failed_questions": 1}] * 2, 0, "2 questions failed"),
        (
            [{**GOOD, "spo/generated_tokens": 300}] * 2,
            0,
            "generated 600 tokens, expected 750: more than 20% apart",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, steps, exit_code, problem):
    assert judged(tmp_path, *steps, exit_code=exit_code).problem == problem


def test_a_log_that_cannot_be_read_is_a_failure(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("not json\n")
    assert "line 1" in judge("any", tmp_path / "metrics.jsonl", 0, 1.0, 1.0, 2.0).problem


def test_the_command_names_experiment_and_overlay(tmp_path):
    line = command("rho_gsm8k_ppo", [*paths(tmp_path / "data", tmp_path / "policy", tmp_path), "data.seed=1"])
    assert line[3:5] == ["experiments=rho_gsm8k_ppo", "overlay=tiny_cpu"] and line[-1] == "data.seed=1"
    assert "rho_gsm8k_ppo" in experiment_names()


def test_a_run_that_takes_too_long_is_ended(tmp_path):
    started = time.monotonic()
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    console = Console(file=open(tmp_path / "out", "w"))
    outcome = train(sleeper, {}, tmp_path / "metrics.jsonl", tmp_path / "log", 2, console, limit=0.1)
    assert outcome.exit_code != 0 and time.monotonic() - started < 30
