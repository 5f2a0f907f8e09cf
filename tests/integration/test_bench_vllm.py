"""The value bench through vLLM: the whole command, twice, ends in the same numbers."""

from __future__ import annotations

import json

import pytest

from tests.conftest import run_module

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # vLLM starts three times

OPTIONS = ["--questions", "2", "--truth", "8", "--chunk", "1", "--groups", "4", "--continuations", "2"]
OPTIONS += ["--trees", "3-2@8", "--cut-trees", "3-2@8", "--step-tokens", "500", "--question-tokens", "100"]


def test_two_runs_end_in_the_same_numbers_and_the_second_half_can_come_later(policy, arithmetic, tmp_path):
    results = []
    for out in (tmp_path / "first", tmp_path / "second"):
        command = ["recipe.spo.bench_values", policy, "--data", arithmetic, "--out", out, *OPTIONS]
        done = run_module(*command, timeout=600)
        assert done.returncode == 0, done.stderr
        results.append((out / "result.json").read_bytes())
        assert "Policy gradient" in done.stdout and (out / "gradient.png").exists()
    assert results[0] == results[1]
    found = json.loads(results[0])
    assert found["truth"]["continuations"] == 8 and found["run"]["engine"]["device"] == "cpu"
    assert all(row["tokens"] > 0 for row in found["methods"])
    # what a run that stopped in its last chunk of rollouts leaves behind
    (tmp_path / "second" / "rollouts" / "00001.json").unlink()
    (tmp_path / "second" / "result.json").unlink()
    done = run_module(*command, timeout=600)
    assert done.returncode == 0 and "2 of 2 questions have their truth, 1 their rollouts" in done.stdout, done.stderr
    assert (tmp_path / "second" / "result.json").read_bytes() == results[0]
