"""A run keeps its newest and its best checkpoint over a kill, refuses to be another run's, and is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from recipe.spo.training_log import cumulative, history, read_records
from tests.conftest import REPOSITORY
from tests.e2e.stack import step_metrics_of, train, train_and_kill

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STEPS = 4
KEEPING = (
    "algorithm.spo.tree.branch_factors=[3,2,2]",
    "algorithm.spo.tree.segment_length=6",
    "algorithm.spo.optimizer_steps=2",
    "algorithm.spo.replay.rows_per_step=16",
    "algorithm.spo.replay.rows_per_question=4",
    "algorithm.spo.replay.max_age=2",
    "actor_rollout_ref.actor.use_kl_loss=False",
    "actor_rollout_ref.actor.clip_ratio=0.02",  # narrow, so that some tokens are clipped
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=1",
    "trainer.test_freq=1",
    "trainer.max_actor_ckpt_to_keep=1",
)


def steps_in(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("global_step_")) for path in folder.glob("global_step_*")}


def records_of(out: Path) -> list[dict]:
    return read_records(out / "metrics.jsonl")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def best_of(folder: Path) -> dict:
    return read(folder / "best.json")


def accuracy_of(metrics: dict) -> float:
    (value,) = (value for name, value in metrics.items() if re.fullmatch(r"val-core/.+/acc/mean@1", name))
    return value


def export(run: Path, out: Path, step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recipe.spo.export", str(run), "--out", str(out), "--step", step],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )


def test_the_best_is_kept_over_a_kill_and_exported_with_a_card(arithmetic, policy, tmp_path):
    killed, resumed = tmp_path / "killed", tmp_path / "resumed"
    folder = killed / "checkpoints"
    train_and_kill(arithmetic, policy, killed, 2, *KEEPING)
    before = best_of(folder)
    assert before["step"] in steps_in(folder)

    here = f"trainer.default_local_dir={folder}"
    done = train(arithmetic, policy, resumed, *KEEPING, here)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert f"resuming from {folder}/global_step_" in done.stdout

    # The newest and the best, and nothing else; the best is so by what the runs logged.
    best = best_of(folder)
    assert steps_in(folder) == {STEPS, best["step"]} and not list(folder.glob(".deleted*"))
    # The resumed run validates again what it goes on from: the first measurement counts.
    measured = {**step_metrics_of(resumed), **step_metrics_of(killed)}
    logged = {step: accuracy_of(metrics) for step, metrics in measured.items()}
    assert best["value"] >= before["value"] and best["value"] == pytest.approx(max(logged.values()))
    for name in ("data.pt", "spo_step.json", "spo_validation.json", "spo_waiting_rows.pt", "actor"):
        assert (folder / f"global_step_{STEPS}" / name).exists()
    assert yaml.safe_load((folder / "run.yaml").read_text())["algorithm"]["spo"]["method"] == "tree"
    assert (folder / "run.1.yaml").exists()  # of the first start, which dumped elsewhere

    # Every row that trained has an age, and each age a clip fraction.
    last = step_metrics_of(resumed)[STEPS]
    ages = {name.rpartition("_")[2] for name in last if name.startswith("spo/replay/rows_of_age_")}
    fractions = {n.rpartition("_")[2]: v for n, v in last.items() if n.startswith("spo/replay/clip_fraction_of_age_")}
    assert set(fractions) == ages and all(0 <= value <= 1 for value in fractions.values())

    # Totals are those of all steps that count, the killed run's too.
    totals = read(folder / f"global_step_{STEPS}" / "spo_step.json")
    assert totals["counted_from"] == 1 and set(totals["validations"]) >= {"0"}
    generated = cumulative(history(records_of(killed) + records_of(resumed)), "spo/generated_tokens")
    assert totals["totals"]["generated_tokens"] == generated[STEPS]

    # Another model in that folder is refused, before Ray starts.
    shutil.copytree(policy, tmp_path / "another")
    done = train(arithmetic, tmp_path / "another", tmp_path / "other", *KEEPING, here)
    assert done.returncode == 2 and f"{folder} holds checkpoints of a run with '{policy}'" in done.stderr

    # What is exported is the model that was saved, and generates.
    done = export(folder, tmp_path / "model", "best")
    assert done.returncode == 0, done.stdout + done.stderr
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    shard = folder / f"global_step_{best['step']}" / "actor" / "model_world_size_1_rank_0.pt"
    saved = {name: getattr(t, "_local_tensor", t) for name, t in torch.load(shard, weights_only=False).items()}
    for name, weights in model.state_dict().items():
        if name in saved:
            assert torch.equal(weights.to(torch.bfloat16), saved[name].to(torch.bfloat16)), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) <= model.config.vocab_size
    prompt = torch.tensor([[5, 6]])
    assert model.generate(prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt.shape[1]
    assert GenerationConfig.from_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"step: {best['step']}" in card and "manifest SHA-256" in card and f"{best['value']:.1%} ±" in card
    assert str(tmp_path) not in card
