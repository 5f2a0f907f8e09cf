"""The graders on the answers of MATH and GSM8K: each is right, and wrong with one digit or sign changed."""

import json
import os
import random
import re
from pathlib import Path

import pytest

from recipe.spo.rewards import gsm8k
from recipe.spo.rewards.math import grade_many
from recipe.spo.rewards.verdict import Reason
from tests.conftest import REPOSITORY

REAL_DATA = Path(os.environ.get("SPO_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
needs_real_data = pytest.mark.skipif(not (REAL_DATA / "math_train.jsonl").is_file(), reason="the real data is not here")


def answers(*names: str) -> list[str]:
    found = []
    for name in names:
        with (REAL_DATA / f"{name}.jsonl").open(encoding="utf-8") as lines:
            found += [answer for line in lines if (answer := json.loads(line)["answer"])]
    return found


def corrupted(answer: str, rng: random.Random) -> str | None:
    """The answer with one digit or sign changed, None if it has neither."""
    places = [place.start() for place in re.finditer(r"[0-9]|(?<![a-zA-Z])[-+](?=[0-9a-z\\])", answer)]
    if not places:
        return None
    place = rng.choice(places)
    old = answer[place]
    new = {"-": "+", "+": "-"}.get(old) or rng.choice([digit for digit in "123456789" if digit != old])
    return answer[:place] + new + answer[place + 1 :]


@needs_real_data
def test_every_right_answer_of_math_is_right():
    golds = answers("math_train", "math_test", "math500")
    assert len(golds) == 7498 + 5000 + 500
    verdicts = grade_many([(f"\\boxed{{{gold}}}", gold) for gold in golds])
    assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if not verdict.score] == []


@needs_real_data
def test_every_right_answer_of_gsm8k_is_right():
    golds = [answer.rpartition("####")[2].strip() for answer in answers("gsm8k_train", "gsm8k_test")]
    assert len(golds) == 7473 + 1319
    assert all(gsm8k.grade(f"#### {gold}", gold).score for gold in golds)


@needs_real_data
def test_corrupted_answers_are_wrong():
    rng, count = random.Random(0), 500
    golds = answers("math_train", "math_test", "math500")
    pairs = []
    while len(pairs) < count:
        gold = rng.choice(golds)
        other = corrupted(gold, rng)
        if other:
            pairs.append((f"\\boxed{{{other}}}", gold))
    verdicts = grade_many(pairs)
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.reason is not Reason.WRONG] == []
    for gold in rng.sample(answers("gsm8k_train", "gsm8k_test"), count):
        gold = gold.rpartition("####")[2].strip()
        assert gsm8k.grade(f"#### {corrupted(gold, rng)}", gold).reason is Reason.WRONG
