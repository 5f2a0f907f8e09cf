"""MATH's final answer: the content of the last box."""

import json

import pytest

from data_prep.boxed import last_boxed
from data_prep.errors import DataError
from tests.preparing import REAL_DATA, needs_real_data


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("$\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}"),
        ("\\boxed{1} no, \\boxed{2}", "2"),
        ("\\boxed 2$.", "2"),
        ("\\boxed {17}.$$", "17"),
        ("\\boxed\n{ 3 }", "3"),
        ("\\fbox{4}", "4"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\}}", "\\}"),
        ("\\boxed{x \\boxed{5}}", "5"),
        ("\\boxed{}", ""),
        ("\\boxed{6} \\boxedfoo{7}", "6"),
    ],
)
def test_the_last_box(solution, answer):
    assert last_boxed(solution, "here") == answer


@pytest.mark.parametrize(
    ("solution", "message"), [("Two.", "here: .* no .boxed"), ("\\boxed{\\frac{1}{2}", "here: .* never closed")]
)
def test_a_solution_without_an_answer_in_a_box(solution, message):
    with pytest.raises(DataError, match=message):
        last_boxed(solution, "here")


@needs_real_data
def test_the_last_box_of_every_real_row_is_the_answer_told_beside_it():
    for name in ("math_train", "math_test", "math500"):
        for line in (REAL_DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert last_boxed(row["solution"], row["unique_id"]) == row["answer"].strip()
