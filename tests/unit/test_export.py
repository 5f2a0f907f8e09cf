"""Exporting a checkpoint: which one, what is refused, and a card that says what the run recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from recipe.spo.checkpoints import TRACKER, Checkpoints
from recipe.spo.evaluation import models
from recipe.spo.export import Checkpoint, find_checkpoint, main
from recipe.spo.model_card import Recorded, model_card
from recipe.spo.run_record import CONFIG, FACTS

ACCURACY = "val-core/arithmetic/acc/mean@1"
RUN_CONFIG = {
    "algorithm": {"spo": {"method": "tree", "tree": {"branch_factors": [6, 6, 6]}, "dump_dir": "/home/me/dump"}},
    "actor_rollout_ref": {"model": {"path": "/home/me/tiny"}, "actor": {"optim": {"lr": 1e-6}}},
    "trainer": {"experiment_name": "spo_tree"},
}
RUN_FACTS = {
    "versions": {"verl-spo": "0.1.0", "verl": "0.9.1"},
    "data": {
        "train_files": [{"file": "a/train.parquet", "data_set": "arithmetic", "manifest_sha256": "12ab"}],
        "val_files": [{"file": "a/validation.parquet"}],
    },
    "grader": {"path": "pkg://recipe.spo.rewards.score", "name": "compute_score", "reward_kwargs": {"task": "math"}},
}


def save(run: Checkpoints, step: int, accuracy: float | None) -> None:
    run.count({"spo/generated_tokens": 1000, "spo/trained_tokens": 20})
    run.saving(step)
    weights = run.root / f"global_step_{step}" / "actor" / "huggingface"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    (weights / "tokenizer.json").write_text("{}")
    (weights / "generation_config.json").write_text("{}")
    (weights / "model.safetensors").write_text(f"weights of {step}")
    (weights.parent / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    (run.root / TRACKER).write_text(str(step))
    run.saved(step)
    if accuracy is not None:
        run.validated(step, {ACCURACY: accuracy}, {"arithmetic": 256})


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose second checkpoint of three is the best."""
    root = tmp_path / "run"
    checkpoints = Checkpoints(root, newest=None, keep_best=True)
    checkpoints.validated(0, {ACCURACY: 0.3}, {"arithmetic": 256})
    for step, accuracy in ((10, 0.4), (20, 0.5), (30, 0.45)):
        save(checkpoints, step, accuracy)
    (root / CONFIG).write_text(yaml.safe_dump(RUN_CONFIG))
    (root / FACTS).write_text(json.dumps(RUN_FACTS))
    return root


def exported(run: Path, *arguments: str) -> Path:
    out = run.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    assert main([str(run), "--out", str(out), *arguments]) == 0
    return out


def refusal(capsys, *arguments: object) -> str:
    assert main(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_latest_the_best_or_a_step_is_exported(run):
    for arguments, step in (((), 30), (("--step", "best"), 20), (("--step", "latest"), 30), (("--step", "10"), 10)):
        assert (exported(run, *arguments) / "model.safetensors").read_text() == f"weights of {step}"
    assert find_checkpoint(run / "global_step_10") == Checkpoint(run, 10)


def test_the_folder_holds_weights_tokenizer_generation_config_and_card_and_can_be_loaded_from(run):
    out = exported(run)
    names = {"config.json", "tokenizer.json", "generation_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in out.iterdir()} == names
    assert models.find_model(str(out)).folder == out
    assert not list(run.parent.glob(".out*"))


def test_shards_are_merged_by_verls_merger(run, monkeypatch):
    actor = run / "global_step_30" / "actor"
    (actor / "huggingface" / "model.safetensors").unlink()
    (actor / "model_world_size_1_rank_0.pt").write_text("shard")

    def merge(command, **_):
        target = Path(command[command.index("--target_dir") + 1])
        shutil.copytree(actor / "huggingface", target, dirs_exist_ok=True)
        (target / "model.safetensors").write_text("merged")
        return models.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(models.subprocess, "run", merge)
    out = exported(run)
    assert (out / "model.safetensors").read_text() == "merged" and not (out / models.STAMP).exists()


def test_the_card_says_what_the_run_recorded(run):
    card = (exported(run, "--step", "best") / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] is None and "base_model" not in front  # a folder of somebody's machine
    assert "base model: `tiny`" in card and "/home/me" not in card
    assert "method: tree (`spo_tree`)" in card and "step: 20" in card
    # sqrt(0.5 * 0.5 / 256) = 0.03125
    assert "| 20 | arithmetic | acc, mean of 1 | 50.0% ± 3.1% (n = 256) |" in card
    assert "| 0 | arithmetic | acc, mean of 1 | 30.0% ± 2.9% (n = 256) |" in card
    assert "| 30 |" not in card
    assert "best of 3 validated checkpoints" in card
    assert "generated tokens: 2,000" in card and "trained tokens: 40" in card
    assert "data set `arithmetic`, manifest SHA-256 `12ab`" in card and "`a/validation.parquet`" in card
    assert "grader: `pkg://recipe.spo.rewards.score:compute_score` with `{'task': 'math'}`" in card
    assert "verl-spo 0.1.0, verl 0.9.1" in card
    settings = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert settings["algorithm.spo"]["tree"] == {"branch_factors": [6, 6, 6]}
    assert settings["actor_rollout_ref.actor.optim.lr"] == 1e-6


def test_a_base_model_on_the_hub_is_linked_and_what_is_not_recorded_is_not_claimed():
    named = {"actor_rollout_ref": {"model": {"path": "owner/model"}}}
    assert "\nbase_model: owner/model\n" in model_card(Recorded(step=1, config=named), "x")
    card = model_card(Recorded(step=7), "x")
    assert "base model: not recorded" in card and card.count("Not recorded.") == 3
    assert "None was recorded." in card


def test_a_checkpoint_that_was_not_validated_says_so(run):
    checkpoints = Checkpoints(run, newest=None, keep_best=True)
    checkpoints.resumed(30, run / "global_step_30")
    save(checkpoints, 40, None)
    card = (exported(run) / "README.md").read_text()
    assert "This checkpoint itself was not validated." in card and "| 30 |" in card and "It is the best" not in card


def test_what_is_refused(run, tmp_path, capsys):
    out = tmp_path / "out"
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("")
    assert "--out" in refusal(capsys, run, "--out", full) and (full / "file").exists()
    assert "is not a folder" in refusal(capsys, tmp_path / "none", "--out", out)
    message = refusal(capsys, run, "--out", out, "--step", 15)
    assert "no checkpoint of step 15; it has 10, 20, 30" in message
    assert "--step is 'last': use a number" in refusal(capsys, run, "--out", out, "--step", "last")
    assert "leave out --step best" in refusal(capsys, run / "global_step_10", "--out", out, "--step", "best")
    (run / "global_step_40").mkdir()
    assert "says that step 30 is the last complete one" in refusal(capsys, run / "global_step_40", "--out", out)
    (run / "best.json").unlink()
    assert "has no best.json" in refusal(capsys, run, "--out", out, "--step", "best")
    (run / CONFIG).write_text("a: [")
    assert "run.yaml is not readable" in refusal(capsys, run, "--out", out)
    (run / TRACKER).unlink()
    assert "holds no complete checkpoint" in refusal(capsys, run, "--out", out)
    assert not out.exists()


def test_a_checkpoint_without_all_shards_is_refused_and_leaves_nothing(run, tmp_path, capsys):
    actor = run / "global_step_30" / "actor"
    (actor / "huggingface" / "model.safetensors").unlink()
    message = refusal(capsys, run, "--out", tmp_path / "out")
    assert "is incomplete: model_world_size_1_rank_0.pt is missing" in message
    assert not (tmp_path / "out").exists()
