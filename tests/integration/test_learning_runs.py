"""Runs of the bench of learning curves, as verl composes them; and two for real."""

from __future__ import annotations

import itertools
import shlex
import subprocess

import pytest

from benchmarks.learning.command import main
from benchmarks.learning.plan import METHODS, VARIANTS, Run, parse_method
from benchmarks.learning.starts import Start
from benchmarks.learning.store import METRICS
from examples.demo import SCRIPT
from recipe.spo.json_files import read_json
from recipe.spo.training_log import curves, read_records
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.integration


def arguments_of(run: Run, tmp_path) -> list[str]:
    """What the script hands to Python, by a Python that prints it."""
    echo = tmp_path / "echo"
    echo.write_text('#!/usr/bin/env bash\nprintf "%q " "$@"\n')
    echo.chmod(0o755)
    places = {"DATA": "data", "MODEL": "model", "OUT": str(tmp_path), "PYTHON": str(echo)}
    command = ["bash", str(SCRIPT), *run.overrides]
    environment = {"PATH": "/usr/bin:/bin", **run.environment, **places}
    printed = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    return shlex.split(printed.stdout)[2:]  # without -m and the module


@pytest.fixture(scope="module")
def compose():
    import verl  # noqa: F401  # its configurations are on Hydra's search path
    from hydra import compose, initialize_config_module

    from recipe.spo.plugin import register_resolver

    register_resolver()
    with initialize_config_module("recipe.spo.config", version_base=None):
        yield lambda overrides: compose("spo_trainer", overrides=overrides)


@pytest.mark.parametrize(("label", "variant"), list(itertools.product(METHODS, VARIANTS)))
def test_what_the_plan_asks_for_is_what_is_composed(label, variant, compose, tmp_path):
    from recipe.spo.preflight import check_verl_settings, settings_of

    run = Run("main", VARIANTS[variant], METHODS[label], 3, 2e-4, 300_000)
    config = compose(arguments_of(run, tmp_path))
    spo = settings_of(config, config.data.max_response_length)
    check_verl_settings(config, spo)
    actor, optimizers = config.actor_rollout_ref.actor, [(config.actor_rollout_ref.actor.optim, 6)]
    assert spo.token_budget == 300_000 and config.data.train_batch_size == run.questions
    if label == "ppo":
        optimizers.append((config.critic.optim, -1))
        assert config.critic.optim.lr == 3e-4  # its own
    for optimizer, steps in optimizers:
        schedule = optimizer.lr_scheduler_type, optimizer.lr_warmup_steps_ratio, optimizer.lr_warmup_steps
        assert schedule == ("constant", 0.0, steps)
    assert actor.optim.lr == 2e-4
    seeds = config.data.seed, config.actor_rollout_ref.rollout.seed, actor.data_loader_seed
    assert {*seeds, config.critic.data_loader_seed, config.trainer.v1.sampler.sampler_kwargs.seed} == {3}
    assert (config.trainer.save_freq, config.trainer.test_freq) == (-1, run.validate_every)


def test_overrides_of_ones_own_have_the_last_word(compose, tmp_path):
    method = parse_method("wide=tree data.train_batch_size=3 algorithm.spo.tree.branch_factors=[6,6,6]")
    config = compose(arguments_of(Run("main", VARIANTS["hard"], method, 0, 1e-4, 10), tmp_path))
    assert config.data.train_batch_size == 3 and config.algorithm.spo.tree.branch_factors == [6, 6, 6]


@pytest.mark.slow
def test_two_runs_for_real_then_nothing_is_left_to_do(arithmetic, policy, tmp_path):
    """Two seeds of SPO-tree through the whole stack, two steps each; what they sample differs."""
    out = tmp_path / "bench"
    small = "small=tree data.train_batch_size=8 algorithm.spo.tree.branch_factors=[3,2] "
    small += "algorithm.spo.tree.segment_length=6 data.max_response_length=40"

    def start(out, variant, problems, console):
        return Start(arithmetic, policy, {"problems": 32, "task": {}})

    command = ["--out", str(out), "--method", small, "--methods", "small", "--variants", "easy", "--rates", "demo"]
    command += ["--seeds", "0,1", "--budget", "600"]
    assert main(command, make_start=start) == 0
    logs = []
    for seed in (0, 1):
        folder = out / f"main/easy/small/seed{seed}"
        log = curves(read_records(folder / METRICS))
        assert read_json(folder / "run.json")["exit_status"] == 0
        before = sum(data["data"].get("spo/generated_tokens", 0) for data in read_records(folder / METRICS)[:-1])
        assert before < 600 <= log.totals["generated_tokens"], "it ends with the step that spends the budget"
        assert set(log.accuracy) >= {0, log.steps}
        assert not list(folder.glob("checkpoints/global_step_*"))
        logs.append(read_records(folder / METRICS))
    assert logs[0][0]["data"] == pytest.approx(logs[1][0]["data"]), "one policy, greedily"
    assert logs[0][1]["data"]["spo/generated_tokens"] != logs[1][1]["data"]["spo/generated_tokens"]
    assert (out / "accuracy_easy_optimizer.png").exists()

    def never(*arguments):
        raise AssertionError("everything is finished")

    assert main(command, launch=never, make_start=start) == 0
