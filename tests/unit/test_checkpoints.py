"""Which checkpoints stay: the newest, the best, and whatever is not the run's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.checkpoints import (
    BEST,
    STEP,
    TRACKER,
    VALIDATION,
    CheckpointError,
    Checkpoints,
    best_step,
    latest_step,
    score,
    steps_to_delete,
)

ACCURACY = "val-core/arithmetic/acc/mean@1"
PROBLEMS = {"arithmetic": 64}


# --- the pure part -------------------------------------------------------------------------------


def test_the_newest_and_the_best_stay():
    assert steps_to_delete([10, 20, 30, 40], latest=40, best=10, newest=2) == [20]
    assert steps_to_delete([10, 20, 30, 40], latest=40, best=40, newest=1) == [10, 20, 30]
    assert steps_to_delete([10, 20, 30, 40], latest=40, best=None, newest=None) == []


def test_what_is_later_than_the_latest_stays():
    """Unfinished, or of a future that the user went back from."""
    assert steps_to_delete([10, 20, 30, 40], latest=20, best=None, newest=1) == [10]


@given(
    own=st.sets(st.integers(1, 30)),
    latest=st.integers(1, 30),
    best=st.none() | st.integers(1, 30),
    newest=st.integers(1, 5),
)
def test_never_more_than_asked_for(own, latest, best, newest):
    deleted = steps_to_delete(own, latest, best, newest)
    past = {step for step in own if step <= latest}
    assert set(deleted) <= past - {latest, best}
    assert len(past - set(deleted)) >= min(newest, len(past))
    assert len(past - set(deleted)) <= newest + 1 + (latest not in past)


def test_of_equal_scores_the_earliest_is_the_best():
    assert best_step({30: 0.5, 10: 0.5, 20: 0.4}) == 10
    assert best_step({}) is None


def test_the_score_is_the_mean_accuracy_or_the_metric_that_was_named():
    measured = {
        "val-core/a/acc/mean@1": 0.2,
        "val-core/b/acc/mean@1": 0.6,
        "val-core/b/acc/best@1/mean": 0.9,
        "val-aux/x": 3,
    }
    assert score(measured, True) == ("val-core/a/acc/mean@1, val-core/b/acc/mean@1", pytest.approx(0.4))
    assert score(measured, "val-aux/x") == ("val-aux/x", 3)
    with pytest.raises(CheckpointError, match="did not measure val-core/c; it measured val-aux/x, val-core/a"):
        score(measured, "val-core/c")
    with pytest.raises(CheckpointError, match="did not measure val-core/SOURCE/acc/mean@N; it measured nothing"):
        score({}, True)


# --- a run's folder ------------------------------------------------------------------------------


def save(run: Checkpoints, step: int) -> None:
    """What the trainer does, with a file for verl's parts."""
    run.saving(step)
    (run.root / f"global_step_{step}" / "actor").mkdir(exist_ok=True)
    (run.root / TRACKER).write_text(str(step))
    run.saved(step)


def validate(run: Checkpoints, step: int, accuracy: float) -> None:
    run.validated(step, {ACCURACY: accuracy, "val-aux/text": "not a number", "val-aux/nan": float("nan")}, PROBLEMS)


def steps_in(root: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("global_step_")) for folder in root.glob("global_step_*"))


def best_in(root: Path) -> dict:
    return json.loads((root / BEST).read_text())


def resume(root: Path, step: int, newest: int | None = 1) -> Checkpoints:
    run = Checkpoints(root, newest=newest, keep_best=True)
    run.resumed(step, root / f"global_step_{step}")
    return run


@pytest.fixture
def run(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path, newest=1, keep_best=True)


def test_the_best_is_kept_beside_the_newest(run):
    validate(run, 0, 0.9)  # before training: there is no checkpoint of it
    for step, accuracy in ((10, 0.3), (20, 0.6), (30, 0.4), (40, 0.5)):
        save(run, step)
        validate(run, step, accuracy)
    assert steps_in(run.root) == [20, 40]
    found = best_in(run.root)
    assert (found["step"], found["metric"], found["value"]) == (20, ACCURACY, 0.6)


def test_the_best_so_far_stays_while_a_newer_one_is_saved_and_not_yet_validated(run):
    save(run, 10)
    validate(run, 10, 0.3)
    save(run, 20)
    assert steps_in(run.root) == [10, 20] and best_in(run.root)["step"] == 10
    validate(run, 20, 0.4)
    assert steps_in(run.root) == [20] and best_in(run.root)["step"] == 20


def test_a_step_that_is_not_saved_and_one_that_is_not_validated_are_not_the_best(run):
    save(run, 10)
    validate(run, 15, 0.9)
    save(run, 20)
    assert steps_in(run.root) == [20] and not (run.root / BEST).exists()


def test_a_deletion_that_fails_ends_no_run_and_is_tried_again(run, monkeypatch, capsys):
    def busy(path):
        raise OSError(16, "Device or resource busy")

    save(run, 10)
    with monkeypatch.context() as patch:
        patch.setattr("recipe.spo.checkpoints.shutil.rmtree", busy)
        save(run, 20)
    assert "warning:" in capsys.readouterr().out and steps_in(run.root) == [20]
    assert list(run.root.glob(".deleted_global_step_10"))
    save(run, 30)
    assert not list(run.root.glob(".deleted*"))


def test_without_keep_best_only_the_newest_stay(tmp_path):
    run = Checkpoints(tmp_path, newest=2, keep_best=None)
    for step in (10, 20, 30):
        save(run, step)
        validate(run, step, 1 - step / 100)
    assert steps_in(tmp_path) == [20, 30] and not (tmp_path / BEST).exists()


def test_a_resumed_run_knows_its_best_and_cleans_up_what_the_killed_one_left(run):
    for step, accuracy in ((10, 0.6), (20, 0.3)):
        save(run, step)
        validate(run, step, accuracy)
    # Killed while step 30 was being saved, and before in the middle of a deletion.
    run.saving(30)
    (run.root / ".deleted_global_step_5" / "actor").mkdir(parents=True)
    again = resume(run.root, 20)
    assert steps_in(run.root) == [10, 20, 30]  # 30 is unfinished, and about to be written over
    assert not list(run.root.glob(".deleted*"))
    save(again, 30)
    assert steps_in(run.root) == [10, 30] and best_in(run.root)["step"] == 10


def test_a_checkpoint_that_was_not_validated_before_the_kill_is_validated_by_the_resumed_run(run):
    save(run, 10)
    again = resume(run.root, 10)
    validate(again, 10, 0.5)  # trainer.val_before_train
    assert best_in(run.root)["step"] == 10
    validate(resume(run.root, 10), 10, 0.7)  # and again: the first measurement counts
    assert best_in(run.root)["value"] == 0.5


def test_going_back_leaves_the_later_checkpoints_until_they_are_written_over(run):
    run.newest = None
    for step, accuracy in ((10, 0.3), (20, 0.6), (30, 0.7)):
        save(run, step)
        validate(run, step, accuracy)
    again = resume(run.root, 10)
    assert steps_in(run.root) == [10, 20, 30] and best_in(run.root)["step"] == 10
    save(again, 20)
    assert not (run.root / "global_step_20" / VALIDATION).exists()  # it was of other weights
    assert steps_in(run.root) == [10, 20, 30] and best_in(run.root)["step"] == 10


def test_checkpoints_of_another_run_and_other_folders_are_never_deleted(tmp_path):
    other = Checkpoints(tmp_path, newest=None, keep_best=True)
    for step in (5, 10, 15):
        save(other, step)
        validate(other, step, 0.99)
    (tmp_path / "global_step_7" / "actor").mkdir(parents=True)  # of verl without this package
    (tmp_path / "global_step_best").mkdir()
    run = Checkpoints(tmp_path, newest=1, keep_best=True)
    for step, accuracy in ((10, 0.3), (20, 0.2), (30, 0.1)):
        save(run, step)
        validate(run, step, accuracy)
    (tmp_path / "global_step_best").rmdir()
    assert steps_in(tmp_path) == [5, 7, 10, 15, 30]
    assert best_in(tmp_path)["step"] == 10 and best_in(tmp_path)["value"] == 0.3


def test_totals_and_validations_go_on_over_a_resume(run):
    validate(run, 0, 0.1)
    run.count({"spo/generated_tokens": 100, "spo/trained_tokens": 7, "spo/questions": 2})
    save(run, 1)
    validate(run, 1, 0.2)
    again = resume(run.root, 1)
    again.count({"spo/generated_tokens": 50, "spo/questions": 2})
    save(again, 2)
    written = json.loads((run.root / "global_step_2" / STEP).read_text())
    assert written["totals"] == {"questions": 4, "generated_tokens": 150, "trained_rows": 0, "trained_tokens": 7}
    assert written["counted_from"] == 1 and written["run"] == run.run
    assert {step: entry["metrics"] for step, entry in written["validations"].items()} == {
        "0": {ACCURACY: 0.1},
        "1": {ACCURACY: 0.2},
    }


def test_after_a_checkpoint_without_a_record_totals_say_from_where_they_count(tmp_path):
    (tmp_path / "global_step_8").mkdir()
    run = resume(tmp_path, 8)
    save(run, 9)
    assert json.loads((tmp_path / "global_step_9" / STEP).read_text())["counted_from"] == 9
    assert steps_in(tmp_path) == [8, 9]  # 8 is not known to be its own


def test_an_unknown_metric_is_said_at_the_first_validation(tmp_path):
    run = Checkpoints(tmp_path, newest=1, keep_best="val-core/aime/acc/mean@1")
    with pytest.raises(CheckpointError, match="did not measure val-core/aime/acc/mean@1"):
        validate(run, 0, 0.5)


def test_a_damaged_tracker_is_refused_by_name(tmp_path):
    assert latest_step(tmp_path) is None
    (tmp_path / TRACKER).write_text("")
    with pytest.raises(CheckpointError, match="holds '' and not a step: write the number"):
        latest_step(tmp_path)
    (tmp_path / TRACKER).write_text("10")
    with pytest.raises(CheckpointError, match="there is no global_step_10 beside it"):
        latest_step(tmp_path)
    (tmp_path / "global_step_10").mkdir()
    assert latest_step(tmp_path) == 10
