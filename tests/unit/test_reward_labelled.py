"""The graders against labels that were given by hand (tests/data/README.md)."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from recipe.spo.rewards.score import compute_score
from tests.conftest import REPOSITORY

SOURCES = {"math": "HuggingFaceH4/MATH-500", "gsm8k": "openai/gsm8k", "point24": "spo/point24"}

#: Where a grader does not say what the label says: what each says, and why that stays.
DISAGREEMENTS = {
    "decimal-06": (
        "wrong",
        "correct",
        "thirty correct decimals count as the value: six or more do, as with math-verify",
    ),
    "surd-06": ("wrong", "correct", "eight correct decimals of an irrational number count as the value, likewise"),
    "percent-07": (
        "wrong",
        "correct",
        "0.5 for 50 %: equal in value; which of the two was asked for is not known here",
    ),
    "gsm8k-heading-08": (
        "no_answer",
        "correct",
        "2: before words: a colon may follow an answer too, so only 2. and 2) are taken for headings",
    ),
    "inequality-02": ("correct", "wrong", "a chain of inequalities read from the other side, around f(x)"),
    "point24-08": ("correct", "wrong", "2(3+4+5): the 24 game is played with written signs"),
    "unit-26": ("correct", "wrong", "two and a half in words: words that change a number are not read as numbers"),
    "unit-28": ("correct", "wrong", "three dozen for 36, likewise"),
}


def labelled() -> list[dict]:
    lines = (REPOSITORY / "tests/data/labelled_answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def said(pair: dict) -> str:
    found = compute_score(
        SOURCES[pair["task"]], pair["response"], pair["truth"], extra_info={"finished": pair["finished"]}
    )
    assert found["score"] == (found["reason"] == "correct")
    return found["reason"]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, tuple[str, str]]:
    return {pair["id"]: (pair["reason"], said(pair)) for pair in labelled()}


def test_every_disagreement_with_the_labels_is_known(verdicts):
    differing = {name: pair for name, pair in verdicts.items() if pair[0] != pair[1]}
    assert differing == {name: (label, verdict) for name, (label, verdict, _) in DISAGREEMENTS.items()}


def test_agreement_is_above_98_percent(verdicts):
    agreed = sum(label == verdict for label, verdict in verdicts.values())
    print(f"{agreed} of {len(verdicts)} agree")
    assert len(verdicts) == 476 and agreed > 0.98 * len(verdicts)


def test_no_label_is_easy_by_being_common():
    reasons = Counter(pair["reason"] for pair in labelled())
    assert reasons.keys() == {"correct", "wrong", "no_answer", "unfinished", "ambiguous"}
    assert reasons["correct"] < 0.6 * reasons.total()
