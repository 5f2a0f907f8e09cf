"""Wrong input at the real entry point: one line, exit code 2, within 20 seconds, and Ray never starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.integration


def main_spo(tmp_path, *overrides: str, **environment: str):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "recipe.spo.main_spo", *overrides],
        cwd=REPOSITORY,
        env={**os.environ, "SPO_OUTPUT_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, time.monotonic() - started


def assert_refused(done, message: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert "Traceback" not in done.stderr and "ray" not in done.stdout.lower().replace("array", "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train_files=nothing.parquet", "data.train_files: nothing.parquet does not exist"),
        ("algorithm.spo.tree.branch_factors=[6,0,6]", "branch_factors[1] is 0"),
        ("trainer.nnodes=2", "trainer.nnodes is 2: the CPU platform runs on one machine"),
        ("hardware=gpu_24gb", "hardware=gpu_24gb is for GPUs"),
        (
            "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2",
            "flash-attn is not installed",
        ),
        ("algorithm.spo.tree.branch_factors=6", "branch_factors is 6: give a list"),
        ("algorithm.spo.tree.branch_factors=[]", "branch_factors is empty"),
        ("data.max_response_length=60", "leave nothing of data.max_response_length=60"),
        ("actor_rollout_ref.rollout.n=8", "rollout.n is 8: it must be 1"),
        ("algorithm.spo.mask_treshold=0.5", "unknown key algorithm.spo.mask_treshold"),
    ],
)
def test_wrong_settings(tmp_path, override, message):
    done, seconds = main_spo(tmp_path, override)
    assert_refused(done, message)
    assert seconds < 60  # 8 to 16 on two cores that are otherwise idle


def test_a_model_without_tokenizer(tmp_path, arithmetic):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    data = [f"data.{key}_files={arithmetic / 'train.parquet'}" for key in ("train", "val")]
    done, _ = main_spo(tmp_path, *data, f"actor_rollout_ref.model.path={tmp_path / 'model'}")
    assert_refused(done, "holds no tokenizer")


def test_a_folder_that_holds_another_methods_checkpoint(tmp_path, arithmetic, policy):
    (tmp_path / "run" / "global_step_3").mkdir(parents=True)
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("3")
    record = f"algorithm: {{spo: {{method: chain}}}}\nactor_rollout_ref: {{model: {{path: {policy}, lora_rank: 0}}}}\n"
    (tmp_path / "run" / "run.yaml").write_text(record)
    done, _ = main_spo(
        tmp_path,
        *(f"data.{key}_files={arithmetic / 'train.parquet'}" for key in ("train", "val")),
        f"actor_rollout_ref.model.path={policy}",
        "data.max_response_length=100",
        "data.max_prompt_length=128",
        f"trainer.default_local_dir={tmp_path / 'run'}",
    )
    assert_refused(done, "algorithm.spo.method is 'tree', but")
    assert (tmp_path / "run" / "run.yaml").read_text() == record


def test_a_missing_column(tmp_path):
    pd.DataFrame([{"question": "?", "answer": "1"}]).to_parquet(tmp_path / "rows.parquet")
    done, _ = main_spo(tmp_path, f"data.train_files={tmp_path / 'rows.parquet'}")
    assert_refused(done, "lacks column prompt, data_source, reward_model")


def test_another_verl(tmp_path):
    other = tmp_path / "site" / "verl-0.8.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.8.0\n")
    done, seconds = main_spo(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert_refused(done, "verl 0.8.0 is installed, but recipe/spo needs verl 0.9.1")
    assert seconds < 20


def test_a_plug_in_that_did_not_load(tmp_path):
    """The driver could import it itself; the run's other processes could not."""
    done, _ = main_spo(tmp_path, VERL_USE_EXTERNAL_PLUGINS="none")
    assert_refused(done, "verl did not load the plug-in of recipe.spo")


def test_help_lists_the_settings(tmp_path):
    done, _ = main_spo(tmp_path, "--help")
    assert done.returncode == 0
    assert "branch_factors" in done.stdout and "mask_threshold" in done.stdout
