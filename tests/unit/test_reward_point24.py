"""The 24 game: the grammar, exact values, and each number used once."""

import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.rewards.point24 import NoExpression, evaluate, grade
from recipe.spo.rewards.verdict import Reason, Verdict


def graded(expression: str, *numbers: int, target: int = 24) -> str:
    return grade(f"So \\boxed{{{expression}}}.", json.dumps({"numbers": numbers, "target": target})).reason


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("5*(5-1/5)", (1, 5, 5, 5)),
        (r"5 \times \left(5-\frac{1}{5}\right) = 24", (1, 5, 5, 5)),
        ("8/(3-8/3)", (3, 3, 8, 8)),
        (r"\dfrac{\frac{8}{1}\cdot 6}{2}", (1, 2, 6, 8)),
        ("6 ÷ 1 × 4", (1, 4, 6)),
        ("30 − 6", (6, 30)),
        ("-(-24)", (24,)),
        ("2*-3*-4", (2, 3, 4)),
        ("96/2/2", (2, 2, 96)),
        ("30-3-3", (3, 3, 30)),
        (r"2*\frac{24}{2}", (2, 2, 24)),
        (r"48/\frac{4}{2}", (2, 4, 48)),
        ("[4*6]", (4, 6)),
        ("$4*6$ = 24.0", (4, 6)),
    ],
)
def test_right(expression, numbers):
    assert graded(expression, *numbers) == Reason.CORRECT


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("5*(5-1/5)", (1, 5, 5)),
        ("5*5-1", (1, 5, 5, 5)),
        ("4*6", (6, 6)),
        ("1 2*2", (2, 12)),
        ("1 2*2", (1, 2, 2)),
        ("2(12)", (2, 12)),
        ("(2)(12)", (2, 12)),
        ("12/0", (0, 12)),
        ("24+0/(1-1)", (0, 1, 1, 24)),
        ("2**3*3", (2, 3, 3)),
        ("2^3*3", (2, 3, 3)),
        ("4!", (4,)),
        ("24.0", (24,)),
        ("24 = 24 = 24", (24,)),
        ("24 = x", (24,)),
        ("20 = 24", (20,)),
        ("1+", (1,)),
        (")(", ()),
        ("()", (1,)),
        (r"\frac12", (1, 2)),
        (r"\frac{48}", (48,)),
        (r"\frac{48}+{2}", (2, 48)),
        ("int('24')", (24,)),
        ("2\u0664", (24,)),
        ("+24", (24,)),
        ("10000000000", (1,)),
        ("(" * 300 + "24", (24,)),
    ],
)
def test_wrong(expression, numbers):
    assert graded(expression, *(numbers or (1,))) == Reason.WRONG


def test_reasons():
    truth = '{"numbers": [4, 6]}'
    assert grade("4*6", truth).reason == Reason.NO_ANSWER
    assert grade(r"\boxed{4*6} or \boxed{6*4}", truth).reason == Reason.AMBIGUOUS
    assert grade(r"\boxed{4*6} that is \boxed{4 * 6}", truth).reason == Reason.CORRECT
    assert grade(r"\boxed{4 \times 6 = 24} or \boxed{4×6} or \boxed{4*6}", truth) == Verdict(Reason.CORRECT, "4*6")
    assert grade(r"\boxed{48/\frac{4}{2}}", '{"numbers": [2, 4, 48]}').answer == "48/((4)/(2))"
    assert grade(r"\boxed{1 2*2} or \boxed{12*2}", '{"numbers": [2, 12]}').reason == Reason.AMBIGUOUS
    assert grade(r"\boxed{2**3} or \boxed{2 ** 3}", truth).reason == Reason.WRONG
    assert grade("\\boxed{4+6}, no.\n\n\\boxed{4*6}", truth).reason == Reason.CORRECT
    assert grade(r"for example \boxed{4*6}</think> \boxed{4+6}", truth).reason == Reason.WRONG


@pytest.mark.parametrize("truth", ["", "[1, 2]", "{}", '{"numbers": []}', '{"numbers": ["1"]}', '{"numbers": [true]}'])
def test_a_truth_that_is_no_puzzle_is_an_error_in_the_data(truth):
    with pytest.raises(ValueError, match="prepare the data again"):
        grade(r"\boxed{24}", truth)


def random_expression(rng: random.Random, depth: int) -> tuple[str, Fraction | None]:
    """An expression and its value by recursion, None if it divides by zero: a second way to compute it."""
    if depth == 0 or rng.random() < 0.2:
        number = rng.randrange(14)
        return str(number), Fraction(number)
    left, a = random_expression(rng, depth - 1)
    right, b = random_expression(rng, depth - 1)
    sign = rng.choice(["+", "-", "*", "/", "frac"])
    bad = a is None or b is None or (sign in ("/", "frac") and b == 0)
    value = None if bad else {"+": a + b, "-": a - b, "*": a * b}.get(sign, a / b if b else None)
    if sign == "frac":
        return f"\\frac{{{left}}}{{{right}}}", value
    return f"({left}{sign}{right})", value


@pytest.mark.parametrize("seed", range(300))
def test_values_against_recursion(seed):
    expression, value = random_expression(random.Random(seed), 3)
    if value is None:
        with pytest.raises(NoExpression):
            evaluate(expression)
    else:
        assert evaluate(expression)[0] == value


@given(st.lists(st.sampled_from([*"+-*/", *"123456789"]), min_size=1, max_size=12).map("".join))
def test_binding_against_python(text):
    """Python binds alike, without `**` and `//`, which are no expressions here, and a leading plus."""
    try:
        value = evaluate(text)[0]
    except NoExpression:
        return
    assert abs(float(value) - eval(text)) < 1e-6 * max(1, abs(float(value)))
