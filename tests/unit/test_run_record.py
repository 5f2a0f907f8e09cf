"""What a run writes down about itself, and what it refuses to resume."""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml
from omegaconf import OmegaConf

from recipe.spo.checkpoints import TRACKER, CheckpointError
from recipe.spo.run_record import CONFIG, FACTS, check_resume, record_run


@pytest.fixture
def run(config, tmp_path):
    """A configuration whose folder holds a checkpoint of step 10."""
    OmegaConf.update(config, "trainer.default_local_dir", str(tmp_path / "run"))
    OmegaConf.update(config, "trainer.resume_mode", "auto")
    OmegaConf.update(config, "trainer.resume_from_path", None)
    (tmp_path / "run" / "global_step_10").mkdir(parents=True)
    (tmp_path / "run" / TRACKER).write_text("10")
    return config


def test_a_folder_without_checkpoints_starts_anew(run, tmp_path):
    run.trainer.default_local_dir = str(tmp_path / "new")
    assert check_resume(run) is None


def test_the_same_run_resumes_and_what_changed_is_said(run, capsys):
    record_run(run)
    assert check_resume(run) == 10
    assert capsys.readouterr().out.endswith("/global_step_10\n")
    run.data.train_batch_size = 2
    assert check_resume(run) == 10
    assert "settings that have changed since: data.train_batch_size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"), [("algorithm.spo.method", "chain"), ("actor_rollout_ref.model.lora_rank", 8)]
)
def test_another_method_or_model_is_not_resumed(run, key, value):
    record_run(run)
    OmegaConf.update(run, key, value)
    with pytest.raises(CheckpointError, match=f"^{key} is .* holds checkpoints of a run with .*default_local_dir=DIR"):
        check_resume(run)


def test_the_same_model_written_otherwise_is_the_same(run, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    run.actor_rollout_ref.model.path = str(tmp_path / "model")
    record_run(run)
    monkeypatch.chdir(tmp_path)
    run.actor_rollout_ref.model.path = "./model/"
    assert check_resume(run) == 10
    run.actor_rollout_ref.model.path = "owner/model"
    with pytest.raises(CheckpointError, match="model.path is 'owner/model'"):
        check_resume(run)


def test_a_checkpoint_that_is_named_is_resumed_whatever_it_is_of(run, tmp_path):
    record_run(run)
    run.algorithm.spo.method = "chain"
    run.trainer.resume_mode, run.trainer.resume_from_path = "resume_path", str(tmp_path / "run/global_step_10")
    assert check_resume(run) == 10
    for wrong in ("global_step_11", "global_step_10/", ""):  # verl cannot read a step out of the second
        run.trainer.resume_from_path = f"{tmp_path}/run/{wrong}"
        with pytest.raises(CheckpointError, match="resume_from_path is .* must be a folder global_step_N"):
            check_resume(run)


def test_unknown_origins_and_overwriting_are_said(run, capsys):
    assert check_resume(run) == 10
    assert "whose run left no run.yaml to compare with" in capsys.readouterr().out
    run.trainer.resume_mode = "disable"
    assert check_resume(run) is None
    assert "are written over step by step" in capsys.readouterr().out
    run.trainer.resume_mode = "Auto"
    with pytest.raises(CheckpointError, match="resume_mode is 'Auto': use auto, disable"):
        check_resume(run)


def test_a_differing_record_stays_with_a_number(run, tmp_path):
    folder = tmp_path / "run"
    for batch in (4, 4, 2, 3):
        run.data.train_batch_size = batch
        record_run(run)
    batches = {
        path.name: yaml.safe_load(path.read_text())["data"]["train_batch_size"] for path in folder.glob("run*.yaml")
    }
    assert batches == {"run.1.yaml": 4, "run.2.yaml": 2, CONFIG: 3}
    assert not list(folder.glob(".*"))  # nothing half written


def test_versions_data_and_grader_are_recorded(run, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"data_set": "arithmetic"}))
    OmegaConf.update(
        run, "reward.custom_reward_function", {"path": "pkg://recipe.spo.rewards.score", "name": "compute_score"}
    )
    record_run(run)
    facts = json.loads((tmp_path / "run" / FACTS).read_text())
    assert facts["versions"]["verl"] == "0.9.1"
    (file,) = facts["data"]["train_files"]
    assert file["file"] == f"{tmp_path.name}/data.parquet" and file["data_set"] == "arithmetic"
    assert file["manifest_sha256"] == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert facts["grader"]["name"] == "compute_score"


def test_keys_in_the_environment_of_the_processes_are_not_recorded(run, tmp_path):
    OmegaConf.update(run, "ray_kwargs.ray_init.runtime_env.env_vars.SOME_API_KEY", "secret", force_add=True)
    record_run(run)
    assert "secret" not in (tmp_path / "run" / CONFIG).read_text()


def test_a_run_that_saves_nothing_leaves_no_folder(run, tmp_path):
    run.trainer.default_local_dir, run.trainer.save_freq = str(tmp_path / "other"), -1
    record_run(run)
    assert not (tmp_path / "other").exists()


def test_a_record_that_is_no_configuration_is_refused(run, tmp_path):
    (tmp_path / "run" / CONFIG).write_text("a: [")
    with pytest.raises(CheckpointError, match="run.yaml is not readable as YAML"):
        check_resume(run)


def test_a_folder_that_cannot_be_written_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    run.trainer.default_local_dir = str(tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match="default_local_dir=.* cannot be written"):
        record_run(run)
