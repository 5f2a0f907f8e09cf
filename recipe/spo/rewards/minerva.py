r"""The reference's grader for MATH, for parity studies only: `grader="minerva"`, never the default.

Written from a description of what the SPO authors' code does (it descends from Minerva's and ToRA's
graders). What is known to be wrong with it, and kept:

* It finds an answer in nearly any text: without a mark it takes the last number, so that a response
  that breaks off can be right, and no response is ever ambiguous (of several boxes the last counts).
* A number is right within 1e-3 of the right one, and 100 times too large or too small as well.
* Brackets are not looked at: `(1,2)`, `[1,2]` and `\{1,2\}` are equal.
* Units, percent signs and `\text` are dropped, whatever they say.
* Decimals of irrational values count: `3.14` is `\pi` (off by 5e-4).

Departures: expressions are parsed by math-verify's LaTeX grammar and compared in a grader process within
a second and a half (theirs: sympy's parsers, one of which is `eval`, and 15 seconds); responses are graded
without the prompt; an unfinished one earns 0 if the caller says that it is unfinished.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from recipe.spo.rewards.marked import MAX_ANSWER, boxes, conclusion
from recipe.spo.rewards.normal_form import normal_form
from recipe.spo.rewards.units import without_unit

TOLERANCE = 1e-3

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+", re.ASCII)
_PLAIN = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?\d{1,30})\}\{([-+]?\d{1,30})\}|([-+]?\d{1,30})/(\d{1,30})", re.ASCII)
_OPENS, _CLOSES = ("(", "[", "\\{"), (")", "]", "\\}")


def extract(response: str) -> list[str]:
    """Finds answers, by the first of these that finds one.

    1. Between `final answer is $` and `$. I hope` (the last time).
    2. All boxes.
    3. What follows the last `he answer is`, to the end of its line.
    4. The last number.

    Args:
        response: any text.

    Returns:
        The answers, each once, in order; none if there is not even a number.
    """
    text = conclusion(response)
    head, found, tail = text.rpartition("final answer is $")
    if found:
        answer, closed, _ = tail.partition("$. I hope")
        if closed and len(answer) <= MAX_ANSWER:
            return [answer]
    marked = [box.text for box in boxes(text) if box.text]
    if marked:
        return list(dict.fromkeys(marked))
    _, found, tail = text.rpartition("he answer is")
    if found:
        answer = tail.lstrip(" :").partition("\n")[0][:MAX_ANSWER].strip().rstrip(".")
        if answer:
            return [answer]
    numbers = _NUMBER.findall(text[-100_000:])
    return [numbers[-1][:MAX_ANSWER]] if numbers else []


def compare(predicted: Sequence[str], gold: str) -> str:
    """Compares answers with the right one; runs in a grader process.

    Args:
        predicted: answers in order; as many of the last as there are right ones count, which is one.
        gold: the right one.

    Returns:
        "correct" or "wrong".
    """
    return "correct" if predicted and _same(_stripped(gold), _stripped(predicted[-1]), 0) else "wrong"


def same_without_algebra(predicted: Sequence[str], gold: str) -> bool:
    """Says whether the answer is right already as a string or as a number."""
    left, right = _stripped(gold), _stripped(predicted[-1])
    return left == right or bool(_close(left, right))


def _stripped(answer: str) -> str:
    text = normal_form(answer)
    if text.startswith(r"\text"):
        text = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text)
    text = without_unit(text)[0]
    text = re.sub(r"\\text ?\{[^{}]*\}|\\\$|\\%|\^\\circ", "", text)
    if re.fullmatch(r"[a-zA-Z] ?=[^=]*", text):
        text = text.partition("=")[2]
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if _NUMBER.fullmatch(text) else text
    return text.replace(" ", "").casefold() if text.isalpha() else text.replace(" ", "")


def _number(text: str) -> float | None:
    try:
        if _PLAIN.fullmatch(text):
            return float(text)
        fraction = _FRACTION.fullmatch(text)
        if fraction is None:
            return None
        sign, top, bottom, top2, bottom2 = fraction.groups()
        return (-1 if sign == "-" else 1) * int(top or top2) / int(bottom or bottom2)
    except (ZeroDivisionError, OverflowError):
        return None


def _close(gold: str, predicted: str) -> bool | None:
    """Compares as numbers; None if one is none."""
    left, right = _number(gold), _number(predicted)
    if left is None or right is None:
        return None
    return any(_near(scaled, right) for scaled in (left, left / 100, left * 100))


def _near(left: complex, right: complex) -> bool:
    return abs(left - right) <= TOLERANCE * max(abs(left), abs(right)) < math.inf


def _same(gold: str, predicted: str, depth: int) -> bool:
    if gold == predicted:
        return True
    close = _close(gold, predicted)
    if close is not None:
        return close
    left, right = _items(gold), _items(predicted)
    if depth < 3 and (len(left) > 1 or len(right) > 1):
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(_same(one, other, depth + 1) for one, other in pairs)
    return _equal(gold, predicted)


def _items(text: str) -> list[str]:
    """What a list holds, whatever its brackets."""
    for mark in _OPENS:
        text = text.removeprefix(mark)
    for mark in _CLOSES:
        text = text.removesuffix(mark)
    return text.split(",")


def _equal(gold: str, predicted: str) -> bool:
    from sympy import Basic, simplify

    from recipe.spo.rewards.algebra import parsed

    left, right = parsed(gold), parsed(predicted)
    if not isinstance(left, Basic) or not isinstance(right, Basic):
        return False
    if left == right:
        return True
    try:
        return _near(*(complex(each.evalf()) for each in (left, right)))
    except (TypeError, ValueError, OverflowError):
        return bool(simplify(left - right) == 0)
