"""The reference's grader: what it finds and calls equal, its known mistakes included."""

import pytest

from recipe.spo.rewards.math import grade
from recipe.spo.rewards.minerva import extract
from recipe.spo.rewards.verdict import Reason


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("The final answer is $5$. I hope it is correct. \\boxed{6}", ["5"]),
        ("The final answer is $5. \\boxed{6}", ["6"]),
        ("\\boxed{1}\n\n\\boxed{2} and \\boxed{1}", ["1", "2"]),
        ("The answer is: 7.\nRight?", ["7"]),
        ("The answer is 6, no, the answer is 7", ["7"]),
        ("so 3 + 4 = 1,007", ["1,007"]),
        ("no", []),
        ("<think>\\boxed{5}</think>", []),
    ],
)
def test_what_it_finds(response, found):
    assert extract(response) == found


@pytest.mark.parametrize(
    ("response", "truth", "reason"),
    [
        (r"\boxed{5}", "5", Reason.CORRECT),
        (r"\boxed{4}", "5", Reason.WRONG),
        (r"\boxed{\frac{1}{2}}", "0.5", Reason.CORRECT),
        (r"\boxed{5} and \boxed{6}", "6", Reason.CORRECT),
        (r"\boxed{6} and \boxed{5}", "6", Reason.WRONG),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", Reason.CORRECT),
        (r"\boxed{x^2+2x}", "(x+1)^2", Reason.WRONG),
        (r"\boxed{(1,\frac{2}{4})}", r"(1,\frac12)", Reason.CORRECT),
        (r"\boxed{\text{Monday}}", "Monday", Reason.CORRECT),
        ("nothing", "5", Reason.NO_ANSWER),
        # known mistakes, kept for parity
        ("The total of 12 and", "12", Reason.CORRECT),
        (r"\boxed{0.05}", "5", Reason.CORRECT),
        (r"\boxed{500}", "5", Reason.CORRECT),
        (r"\boxed{1000}", "1000.5", Reason.CORRECT),
        (r"\boxed{[1,2]}", "(1,2)", Reason.CORRECT),
        (r"\boxed{5\text{ m}}", r"5\text{ cm}", Reason.CORRECT),
        (r"\boxed{3.14}", r"\pi", Reason.CORRECT),
        # no mistake: infinity is near nothing
        (r"\boxed{\infty}", r"\frac{\sqrt{3}}{2}", Reason.WRONG),
        (r"\boxed{\frac{1}{0}}", r"\frac{\sqrt{3}}{2}", Reason.WRONG),
    ],
)
def test_what_it_says(response, truth, reason):
    assert grade(response, truth, grader="minerva").reason is reason


@pytest.mark.parametrize(("answer", "truth"), [("0.05", "5"), ("[1,2]", "(1,2)"), ("3.14", r"\pi"), ("1000", "1000.5")])
def test_the_default_makes_none_of_these_mistakes(answer, truth):
    assert grade(f"\\boxed{{{answer}}}", truth).reason is Reason.WRONG
