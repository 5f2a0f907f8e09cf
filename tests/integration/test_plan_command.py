"""`python -m recipe.spo.plan`: composes the real configuration, starts nothing, leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.integration


def plan(tmp_path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recipe.spo.plan", *overrides],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_schedule_on_eight_gpus_planned_without_one(tmp_path):
    schedule = "[{from_step:1,context:2048,segment_length:600},{from_step:401,context:4096,segment_length:1111}]"
    done = plan(
        tmp_path,
        "platform=gpu",
        "trainer.n_gpus_per_node=8",
        "trainer.total_training_steps=1000",
        "data.max_response_length=3584",
        "actor_rollout_ref.model.path=nobody/has-this-model",
        f"algorithm.spo.context_schedule={schedule}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    words = " ".join(done.stdout.split())
    assert "steps 1 to 400 context of 2,048 tokens" in words and "steps from 401 context of 4,096 tokens" in words
    assert f"({6 * 600 + 36 * 600 + 216 * 847:,} a question)" in words  # 2047 - 1200 for the last level
    assert "it is not on this machine, and a plan downloads nothing" in words
    assert not any(tmp_path.iterdir())


def test_a_wrong_setting_is_refused(tmp_path):
    done = plan(tmp_path, "algorithm.spo.replay.rows_per_step=510", "trainer.n_gpus_per_node=2")
    assert done.returncode == 2
    assert "error: algorithm.spo.replay.rows_per_step=510 does not divide" in done.stderr
