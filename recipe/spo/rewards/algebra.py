"""Equality of expressions by math-verify; runs in a grader process only (see `worker`).

What of math-verify is used, and what not:

* Only its LaTeX route (an ANTLR grammar). Its plain-expression route (`ExprExtractionConfig`) hands the
  text to sympy's `parse_expr`, which is Python's `eval`. In the LaTeX route sympy still evaluates number tokens
  (`18`, `1E+5`) in that way, when it makes numbers of them, and texts of its own: its unit prefixes, and
  numbers that mpmath wrote as roots. No other text of an answer gets there; `test_reward_eval` sees to it.
* No search in text and no fallbacks (last number, string): the whole answer is parsed, or it is none.
* Its unit removal is off: it takes single letters off (`5t` would be `5`). `normal_form` has its own.
* Its time-outs are off: they are alarms on the wall clock, in a main thread; `worker` has one around all.
* Decimals become fractions first: it would compare them rounded to six places, so that 1e-7 were 2e-7.
* `2(3)` and `(2)(3)` it reads as a mixed number, 5, `2\\binom{4}{2}` as 26 and `101_2` as 101: they get a
  multiplication sign, the last is not asked. Nor are numbers too large to compute (`9^{9^9}`, `1E+99999`) and
  what nests 30 deep: no answer does.
* Its `i` is a letter, real or not by what stands around it; here it is the imaginary unit.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import math_verify
from latex2sympy2_extended import NormalizationConfig
from sympy import Basic, FiniteSet, I, Number, Rational, Symbol, Tuple

from recipe.spo.rewards.answers import read
from recipe.spo.rewards.equality import same
from recipe.spo.rewards.plain_number import ENOUGH_DECIMALS, read_number

_CONFIG = math_verify.LatexExtractionConfig(
    boxed_match_priority=0,
    try_extract_without_anchor=False,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
    ),
)
_DECIMAL = re.compile(r"(\d+)\.(\d+)", re.ASCII)
_UNREADABLE = re.compile(r"\\text|--|\d_|\d \d|\\\$|\\%|\.\.\.", re.ASCII)
# What only wastes a process: powers of powers of numbers (but `2^{2^{2}}`), huge exponents and factorials.
_HUGE = re.compile(r"\d\^\{(?!\d\^\{[1-4]\}\})[-(]*\d+\^|\^\{-?\d{5,}|\d{4,}[)}]*!|\d\.?[eE][-+]?\d{4}", re.ASCII)
MAX_NESTING = 30


def _nesting(text: str) -> int:
    depth = deepest = 0
    for mark in text:
        depth += (mark in "([{") - (mark in ")]}")
        deepest = max(deepest, depth)
    return deepest


def parsed(text: str) -> Any:
    """Parses an expression in normal form; None if it cannot be read as a whole."""
    if not text or _UNREADABLE.search(text) or _HUGE.search(text) or _nesting(text) > MAX_NESTING:
        return None
    text = re.sub(r"(?<=[\d)])(?=\(|\\binom)", r"\\cdot ", text)
    text = re.sub(r"(\\binom\{[^{}]*\}\{[^{}]*\})(?=[\d(]|\\(?:binom|frac))", r"\1\\cdot ", text)
    text = _DECIMAL.sub(lambda match: rf"(\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}})", text)
    return _parsed(text)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    found = math_verify.parse(
        rf"\boxed{{{text}}}",
        [_CONFIG],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return _one_meaning(found[0]) if found else None


def _one_meaning(expression: Any) -> Any:
    """Makes equal letters equal symbols; the parser gives them assumptions by what stands around them."""
    if not isinstance(expression, Basic):
        return expression
    meanings = {s: I if s.name == "i" else Symbol(s.name, real=True) for s in expression.atoms(Symbol)}
    return expression.xreplace(meanings)


def equal(gold: str, predicted: str) -> bool:
    """Says whether two expressions in normal form are equal; False if one cannot be read."""
    left = parsed(gold)
    if left is None:
        return False
    number = read_number(predicted)
    if number and number.value and number.decimals >= ENOUGH_DECIMALS and isinstance(left, Basic):
        return _rounds_to(left, number.value, number.decimals)
    right = parsed(predicted)
    if right is None or isinstance(right, (FiniteSet, Tuple)) != isinstance(left, (FiniteSet, Tuple)):
        return False
    return bool(
        math_verify.verify(left, right, numeric_precision=20, allow_set_relation_comp=True, timeout_seconds=None)
    )


def _rounds_to(gold: Basic, value: Any, decimals: int) -> bool:
    exact = gold.evalf(decimals + 30)
    if not isinstance(exact, Number) or not exact.is_finite:
        return False
    return bool(2 * abs(exact - Rational(value)) <= Rational(1, 10**decimals))


def compare(predicted: list[str], gold: str) -> str:
    """Compares the different answers of a final statement with the right one.

    Args:
        predicted: what its boxes hold; one, or more that differ in form.
        gold: the ground truth.

    Returns:
        "correct", "wrong" or "ambiguous", as `math.grade` explains them.
    """
    truth, answers = read(gold), [read(answer) for answer in predicted]
    if len(answers) > 1:
        if same(truth, read(",".join(predicted)), equal):
            return "correct"
        if not all(same(answers[0], other, equal) for other in answers[1:]):
            return "ambiguous"
    return "correct" if any(same(truth, answer, equal) for answer in answers) else "wrong"
