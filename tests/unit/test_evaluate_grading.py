"""Grading in an evaluation: a reward function becomes verdicts, and what it cannot grade shows before any sampling."""

from __future__ import annotations

from functools import partial
from importlib import metadata

import pytest

from data_prep.writer import make_row, write_splits
from recipe.spo.evaluation.command import main
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.grading import grader_options, load_grader, reward_function_grader, vote_of
from recipe.spo.rewards.score import compute_score
from recipe.spo.rewards.verdict import Reason, Verdict


def refused(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error:") and error.count("\n") == 1, error


def test_what_cannot_be_graded_is_said_before_the_model_is_looked_at(tmp_path, capsys):
    def data(source, *truths):
        rows = [
            make_row(data_source=source, question="?", answer="", ground_truth=truth, split="test", index=i)
            for i, truth in enumerate(truths)
        ]
        write_splits(tmp_path / "data", {"test": rows})
        return ["run", str(tmp_path / "no model"), "--data", str(tmp_path / "data")]

    refused(capsys, data("mine", "2"), "mine/test/0 is of data source 'mine', for which no grader is known")
    refused(capsys, data("mine", "2"), "choose with --task gsm8k|math|point24, or give your own")
    numbers = data("mine", "2", "two")
    refused(capsys, [*numbers, "--task", "gsm8k"], "mine/test/1 cannot be graded (an empty response was tried): ground")
    refused(capsys, [*numbers, "--task", "math"], "neither a folder on this machine")
    refused(capsys, data("openai/gsm8k", "2", "two"), "openai/gsm8k/test/1 cannot be graded")
    refused(capsys, [*data("mine", "2"), "--grader", "json:dumps"], "dumps() missing 1 required positional argument")


def test_the_graders_options_and_libraries_are_part_of_the_fingerprint():
    assert grader_options(None, "math-verify") == {}
    options = grader_options("math", "minerva")
    grade, fingerprint = load_grader(options=options)
    assert fingerprint["options"] == options == {"task": "math", "grader": "minerva"}
    assert fingerprint["versions"]["sympy"] == metadata.version("sympy")
    assert fingerprint["versions"]["math-verify"] == metadata.version("math-verify")
    # Minerva's answer stands after these words, without a box.
    text = "Final Answer: The final answer is $2$. I hope it is correct."
    assert grade("mine", text, "2", True).score == 1
    assert load_grader(options={"task": "math"})[0]("mine", text, "2", True).score == 0


@pytest.mark.parametrize(
    ("text", "finished", "reason", "vote"),
    [
        ("#### 18", True, Reason.CORRECT, "18"),
        ("#### 17", True, Reason.WRONG, "17"),
        ("nothing", True, Reason.NO_ANSWER, ""),
        ("#### 18", False, Reason.UNFINISHED, ""),
    ],
)
def test_a_reward_function_of_verl_gives_verdicts(text, finished, reason, vote):
    verdict = reward_function_grader(partial(compute_score, task="gsm8k"))("s", text, "18", finished)
    assert verdict.reason is reason and vote_of(verdict) == vote


def test_a_grader_that_gives_reasons_is_believed_of_finished_responses():
    def score(data_source, solution_str, ground_truth, extra_info):
        assert extra_info["finished"]
        return Verdict(Reason.AMBIGUOUS, "4").as_reward()

    grade = reward_function_grader(score)
    assert grade("s", "x", "4", True) == Verdict(Reason.AMBIGUOUS, "4")
    assert grade("s", "x", "4", False) == Verdict(Reason.UNFINISHED)
    assert vote_of(grade("s", "x", "4", True)) == ""
    assert reward_function_grader(lambda **_: 1.0)("s", "x", "4", True).reason is Reason.CORRECT


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.5, "gave score 0.5; an evaluation counts right answers and needs 0 or 1"),
        (-1.0, "gave score -1.0"),
        (float("nan"), "gave score nan"),
        (None, "gave score None"),
        ({"score": 1.0, "acc": 0.3}, "gave acc 0.3"),
        ({"pred": "4"}, "gave score None"),
        ({"score": 1.0, "reason": "fine"}, "gave reason 'fine'; known are correct, wrong, no_answer"),
        ({"score": 1.0, "reason": ["fine"]}, r"gave reason \['fine'\]"),
        ({"score": 1.0, "reason": "wrong"}, "gave reason 'wrong' together with 1 points"),
        ({"score": 0.0, "reason": "correct"}, "gave reason 'correct' together with 0 points"),
    ],
)
def test_what_is_neither_right_nor_wrong_is_refused(given, message):
    with pytest.raises(EvaluationError, match=message):
        reward_function_grader(lambda **_: given)("s", "x", "4", True)


def test_acc_says_right_or_wrong_beside_a_graded_score():
    grade = reward_function_grader(lambda **_: {"score": 0.3, "acc": True, "pred": "4"})
    assert grade("s", "x", "4", True) == Verdict(Reason.CORRECT, "4")
    assert reward_function_grader(lambda **_: {"score": 0.7, "acc": 0})("s", "x", "4", True).reason is Reason.WRONG
