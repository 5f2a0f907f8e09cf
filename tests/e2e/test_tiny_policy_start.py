"""The policy that the demo starts from, made with the demo's own options."""

from __future__ import annotations

import json

import pytest

from tests.conftest import run_module

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_the_demo_starts_from_a_policy_that_is_right_some_of_the_time(tmp_path):
    options = ["--train", "8000", "--min-steps", "4", "--max-steps", "6", "--max-number", "9"]
    assert run_module("data_prep.arithmetic", "--out", tmp_path / "data", *options).returncode == 0
    done = run_module("recipe.spo.tiny_policy", "--data", tmp_path / "data", "--out", tmp_path / "policy", timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "policy" / "tiny_policy.json").read_text())
    assert 0.05 <= record["greedy_accuracy"] <= 0.40
