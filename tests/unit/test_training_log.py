"""Reading verl's `file` tracker, runs that were resumed among them."""

from __future__ import annotations

import json

import pytest

from recipe.spo.training_log import LogError, accuracies, cumulative, curves, history, read_records
from tests.unit.test_report import records

ACCURACY = "val-core/s/acc/mean@1"


def trained(step, tokens, **more):
    return {"step": step, "data": {"spo/generated_tokens": tokens, **more}}


def validated(step, accuracy):
    return {"step": step, "data": {ACCURACY: accuracy, "val-aux/num_turns/mean": 2}}


def test_series_and_totals():
    run = curves(records())
    assert run.accuracy == {0: 0.25, 2: 0.75}
    assert run.root_value == {1: 0.2, 2: 0.4}
    assert (run.totals["generated_tokens"], run.totals["questions"], run.steps) == (150, 4, 2)


def test_an_unfinished_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records()) + '{"step": 3, "da')
    assert [r["step"] for r in read_records(path)] == [0, 1, 2]
    assert read_records(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'step': 1}", "line 2: not JSON"),
        ("[1, 2]", "line 2: not a record"),
        ('{"step": "1", "data": {}}', "line 2: not a record"),
        ('{"step": 1}', "line 2: not a record"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, complaint):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "data": {}}\n' + line + "\n")
    with pytest.raises(LogError, match=f"metrics.jsonl, {complaint}"):
        read_records(path)


def test_the_last_of_two_records_of_a_step_wins():
    run = history([trained(1, 10), trained(2, 20, **{ACCURACY: 0.5}), trained(2, 30)])
    assert cumulative(run, "spo/generated_tokens") == {0: 0, 1: 10, 2: 40}
    assert accuracies(run) == {}, "the accuracy belonged to the step that was undone"


def test_going_back_undoes_the_steps_after():
    # Died after step 4, resumed from the checkpoint of step 2, stopped after step 3.
    log = [validated(0, 0.1), trained(1, 1), trained(2, 2), trained(3, 4), trained(4, 8, **{ACCURACY: 0.9})]
    log += [validated(2, 0.3), trained(3, 16, **{ACCURACY: 0.4})]
    run = history(log)
    assert list(run) == [0, 1, 2, 3]
    assert accuracies(run) == {"s": {0: 0.1, 2: 0.3, 3: 0.4}}
    assert cumulative(run, "spo/generated_tokens") == {0: 0, 1: 1, 2: 3, 3: 19}, "a validation alone replaces nothing"
    assert curves(log).totals["generated_tokens"] == 19


def test_a_run_that_was_started_again_counts_from_its_start():
    log = [validated(0, 0.1), trained(1, 5), trained(2, 5), validated(0, 0.2), trained(1, 7)]
    assert cumulative(history(log), "spo/generated_tokens") == {0: 0, 1: 7}


def test_accuracy_is_meant_over_the_most_samples_of_each_source():
    data = {
        "val-core/a/b/acc/mean@1": 0.1,
        "val-core/a/b/acc/mean@16": 0.2,
        "val-core/a/b/acc/best@16/mean": 0.9,
        "val-core/c/acc/mean@4": 0.3,
        "val-core/d/acc/mean@4": None,
        "val-core/e/reward/mean@4": 0.5,
        "val-aux/f/acc/mean@4": 0.5,
    }
    assert accuracies({3: data}) == {"a/b": {3: 0.2}, "c": {3: 0.3}}
    assert curves([{"step": 3, "data": data}]).accuracy == {3: 0.2}, "the first source"


def test_what_cannot_be_added_up_is_said():
    with pytest.raises(LogError, match="training steps 1-3, 5 are not in the log.*all its files"):
        cumulative(history([trained(4, 1), trained(6, 1)]), "spo/generated_tokens")
    with pytest.raises(LogError, match="training steps 2 did not log spo/generated_tokens"):
        cumulative(history([trained(1, 1), {"step": 2, "data": {"loss": 1.0}}]), "spo/generated_tokens")
