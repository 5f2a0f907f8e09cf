"""The scripts of the experiments and `make train-*`, with the training command replaced by an echo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.ready import problem
from tests.conftest import REPOSITORY

SCRIPTS = sorted(p for p in (REPOSITORY / "examples").glob("run_*.sh") if "tiny" not in p.name)
EXPERIMENTS = REPOSITORY / "recipe/spo/config/experiments"
PYTHON = """#!/usr/bin/env bash
[ "$2" = examples.ready ] && exec {python} "$@"
printf '%s\\n' "$@"
"""


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a `python` that trains nothing, a model folder and data."""
    (tmp_path / "python").write_text(PYTHON.format(python=sys.executable))
    (tmp_path / "python").chmod(0o755)
    for name in ("model/config.json", "model/model.safetensors", "data/train.parquet", "data/validation.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def launch(place: Path, script: Path, *arguments: str, platform: str = "cpu", **variables: str):
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("MODEL", "DATA", "OUT", "GPUS", "NODES", "EXPERIMENT")
    }
    environment = {
        **inherited,
        "PYTHON": str(place / "python"),
        "SPO_PLATFORM": platform,
        "HF_HOME": str(place / "cache"),
        **variables,
    }
    return subprocess.run(
        ["bash", str(script), *arguments], cwd=place, env=environment, capture_output=True, text=True, timeout=60
    )


def assert_refused(done, message: str) -> None:
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert re.search(message, done.stderr) and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_says_in_one_line_what_is_missing(place, script):
    assert_refused(launch(place, script), "this machine has no GPU, .* give the folder of a small model with MODEL=")
    assert_refused(launch(place, script, platform="gpu"), "is not on this machine: fetch it with `hf download ")
    assert_refused(
        launch(place, script, MODEL="model"), r"data/\w+/train.parquet does not exist: make it with `.*data_p"
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_trains_a_local_model_on_the_cpu_and_passes_overrides_on(place, script):
    done = launch(place, script, "trainer.logger=[console]", "a.b=[1, 2]", MODEL="model", DATA="data", GPUS="2")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert (
        done.stderr.startswith("note: this machine has no GPU: training model on the CPU")
        and "overlay=tiny_cpu" in words
    )
    assert words[:2] == ["-m", "recipe.spo.main_spo"] and words[-2:] == ["trainer.logger=[console]", "a.b=[1, 2]"]
    assert {"actor_rollout_ref.model.path=model", "data.val_files=data/validation.parquet"} < set(words)
    assert {"trainer.n_gpus_per_node=2", "trainer.nnodes=1"} < set(words)


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason="there are no experiments yet")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_names_an_experiment_that_exists(script):
    (name,) = re.findall(r"^EXPERIMENT=\$\{EXPERIMENT:-(\w+)\}", script.read_text(), flags=re.M)
    assert (EXPERIMENTS / f"{name}.yaml").exists()


def test_a_note_about_the_cpu_is_for_the_cpu(place):
    done = launch(place, SCRIPTS[0], platform="gpu", MODEL="model", DATA="data")
    assert done.returncode == 0 and done.stdout.startswith("-m\nrecipe.spo.main_spo\n") and done.stderr == ""
    assert "overlay" not in done.stdout


@pytest.mark.parametrize(("missing", "message"), [("model.safetensors", "holds no model"), ("config.json", "holds no")])
def test_a_folder_without_a_model_is_named(place, missing, message):
    (place / "model" / missing).unlink()
    assert message in problem(str(place / "model"), str(place / "data"), "make", cpu=True)


def make(place: Path, target: str, *variables: str):
    environment = {**os.environ, "SPO_PLATFORM": "cpu", "HF_HOME": str(place / "cache")}
    command = ["make", "--no-print-directory", target, f"PY={place / 'python'}", *variables]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("target", "method", "experiment"),
    [
        ("train-gsm8k", "chain", "rho_gsm8k_chain_int5"),
        ("train-gsm8k", "tree", "rho_gsm8k_tree_666"),
        ("train-math", "tree", "r1_math_tree_666"),
        ("train-math", "grpo", "r1_math_grpo"),
    ],
)
def test_make_chooses_the_script_and_passes_variables(place, target, method, experiment):
    chosen = [f"METHOD={method}", f"MODEL={place / 'model'}", f"DATA={place / 'data'}", f"OUT={place / 'out'}"]
    done = make(place, target, *chosen, "GPUS=3", "NODES=2", "ARGS=trainer.total_training_steps=1")
    words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert {f"experiments={experiment}", "trainer.n_gpus_per_node=3", "trainer.nnodes=2"} < set(words)
    assert words[-1] == "trainer.total_training_steps=1"


def test_make_says_in_one_line_what_is_missing(place):
    def complaint(done) -> str:
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert done.returncode == 2 and done.stdout == ""
        return line

    assert "this machine has no GPU" in complaint(make(place, "train-gsm8k"))
    unknown = make(place, "train-math", "METHOD=ppo")
    assert "has no METHOD=ppo: one of tree grpo" in unknown.stderr
    for target in ("train-gsm8k", "eval-gsm8k", "eval-math500", "eval-aime24"):
        assert "run `make setup`" in complaint(make(place, target, "PY=/nowhere/python", "MODEL=m"))


def test_make_evaluates_with_the_python_that_is_given(place):
    done = make(place, "eval-gsm8k", f"MODEL={place / 'model'}", f"DATA={place / 'data'}", "EXTRA=--batch-questions 4")
    assert done.returncode == 0, done.stderr
    assert "recipe.spo.evaluate" in done.stdout.splitlines()
