"""`algorithm.spo.token_budget` in verl's own training loop, with everything that it calls taken out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.integration
STEPS, A_STEP = 9, 100


class Record(SimpleNamespace):
    """What a run did: steps, and after which of them it validated and saved."""


@pytest.fixture
def loop(monkeypatch, tmp_path):
    """A trainer whose steps generate 100 tokens each, and what it did."""
    import verl  # noqa: F401  # loads the plug-ins
    import verl.trainer.ppo.v1.trainer_base as base
    from omegaconf import OmegaConf

    from recipe.spo.checkpoints import Checkpoints
    from recipe.spo.trainer import SPOTrainer

    done = Record(steps=[], validated=[], saved=[])
    for name in ("Tracking", "ValidationGenerationsLogger", "DapoFilteredRewardTableLogger"):
        monkeypatch.setattr(base, name, lambda *args, **kwargs: SimpleNamespace(log=lambda **kwargs: None))
    monkeypatch.setattr(base.SkipManager, "init", lambda config: None)
    monkeypatch.setattr(base.SkipManager, "set_step", lambda step: None)
    monkeypatch.setattr(base.tq, "kv_clear", lambda **kwargs: None)
    for name in ("_reissue_inflight_prompts", "_start_profiling", "_stop_profiling", "_shutdown_dump_executor"):
        monkeypatch.setattr(SPOTrainer, name, lambda self: None)
    monkeypatch.setattr(SPOTrainer, "prepare_step", lambda self: {})
    monkeypatch.setattr(SPOTrainer, "on_step_end", lambda self: None)
    monkeypatch.setattr(SPOTrainer, "_compute_metrics", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(SPOTrainer, "_validate", lambda self: done.validated.append(self.global_steps) or {"a": 1.0})
    monkeypatch.setattr(SPOTrainer, "_save_checkpoint", lambda self: done.saved.append(self.global_steps))

    def a_step(self, metrics, timing, size):
        done.steps.append(self.global_steps)
        metrics["spo/generated_tokens"] = A_STEP
        return SimpleNamespace(tags=[{}], keys=["a"], partition_id="train")

    monkeypatch.setattr(SPOTrainer.__mro__[1], "_step_once", a_step)
    monkeypatch.setattr(base, "KVBatchMeta", SimpleNamespace)

    def run(budget, resumed_with=None, step=0, **frequencies):
        trainer = object.__new__(SPOTrainer)
        trainer.config = OmegaConf.create(
            {
                "data": {"max_prompt_length": 1, "max_response_length": 1, "train_batch_size": 1},
                "trainer": {
                    "project_name": "",
                    "experiment_name": "",
                    "logger": [],
                    "total_epochs": 1,
                    "resume_mode": "auto",
                    "default_local_dir": str(tmp_path),
                    "val_before_train": False,
                    "test_freq": 4,
                    "save_freq": 4,
                    **frequencies,
                },
                "global_profiler": {"steps": None},
            }
        )
        OmegaConf.set_struct(trainer.config, True)
        trainer.spo = SimpleNamespace(
            token_budget=budget, context_at=lambda step, full: full, replay=SimpleNamespace(max_age=0)
        )
        trainer.checkpoints = Checkpoints(tmp_path, newest=None, keep_best=None)
        trainer.global_steps, trainer.total_training_steps, trainer.steps_per_epoch = step, STEPS, 100
        trainer.parameter_sync_step = 1
        if resumed_with is not None:
            monkeypatch.setattr(SPOTrainer.__mro__[1], "_load_checkpoint", lambda self: None)
            monkeypatch.setattr("recipe.spo.trainer.load_waiting_rows", lambda folder, required: None)
            before = Checkpoints(tmp_path, newest=None, keep_best=None)
            before.count({"spo/generated_tokens": resumed_with})
            before.saving(step)
            trainer._load_checkpoint()
        trainer.fit(None)
        return done

    return run


@pytest.mark.parametrize(
    ("budget", "steps", "both"), [(None, STEPS, [4, 8, 9]), (501, 6, [4, 6]), (500, 5, [4, 5]), (1, 1, [1])]
)
def test_the_step_that_spends_the_budget_is_validated_and_saved_as_a_last_one(loop, budget, steps, both):
    done = loop(budget)
    assert done.steps == list(range(1, steps + 1)) and done.validated == done.saved == both


def test_a_budget_that_is_not_reached_changes_nothing(loop):
    done = loop(10 * STEPS * A_STEP)
    assert done.steps == list(range(1, STEPS + 1)) and done.validated == [4, 8, 9]


def test_what_is_off_stays_off(loop):
    done = loop(300, test_freq=-1, save_freq=-1)
    assert done.steps == [1, 2, 3] and done.validated == done.saved == []


def test_a_resumed_run_has_spent_what_its_checkpoint_counted(loop):
    assert loop(501, resumed_with=300, step=3).steps == [4, 5, 6]


def test_a_run_that_has_spent_its_budget_does_nothing_more(loop):
    assert loop(501, resumed_with=550, step=3).steps == []
