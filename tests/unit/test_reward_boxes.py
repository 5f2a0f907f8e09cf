"""The MATH grader: which boxes of a response are its answer, and what several mean."""

import pytest

from recipe.spo.rewards.math import grade
from recipe.spo.rewards.verdict import Reason


@pytest.mark.parametrize(
    ("response", "truth", "reason"),
    [
        ("It is 5", "5", Reason.NO_ANSWER),
        ("#### 5", "5", Reason.NO_ANSWER),
        (r"\boxed{}", "5", Reason.NO_ANSWER),
        (r"\boxed{5", "5", Reason.NO_ANSWER),
        (r"\boxed{4} or \boxed{5}", "5", Reason.AMBIGUOUS),
        (r"\boxed{5} or \boxed{4}", "5", Reason.AMBIGUOUS),
        (r"\boxed{5}, \boxed{5", "5", Reason.AMBIGUOUS),
        ("\\boxed{4}\n\n\\boxed{5}", "5", Reason.CORRECT),
        ("\\boxed{5}\n\n\\boxed{4}", "5", Reason.WRONG),
        (r"\boxed{\frac{1}{2}} so \boxed{0.5}", r"\frac12", Reason.CORRECT),
        (r"\boxed{\sqrt{12}} so \boxed{2\sqrt{3}}", r"2\sqrt{3}", Reason.CORRECT),
        (r"\boxed{\sqrt{12}} so \boxed{2\sqrt{3}}", r"3\sqrt{3}", Reason.WRONG),
        (r"\boxed{\sqrt{12}} so \boxed{2\sqrt{2}}", r"2\sqrt{3}", Reason.AMBIGUOUS),
        (r"$x=\boxed{1}$ and $x=\boxed{2}$", "2,1", Reason.CORRECT),
        (r"$x=\boxed{1}$ and $x=\boxed{2}$", "(1,2)", Reason.AMBIGUOUS),
        (r"$x=\boxed{1}$ and $x=\boxed{2}$", "1,3", Reason.AMBIGUOUS),
        (r"\boxed{4}</think>\boxed{5}", "5", Reason.CORRECT),
        (r"<think>\boxed{5}", "5", Reason.NO_ANSWER),
        (" ".join(f"\\boxed{{{n}}}" for n in range(50)), "5", Reason.AMBIGUOUS),
    ],
)
def test_final_statements(response, truth, reason):
    assert grade(response, truth).reason is reason
