r"""Grader for the 24 game: an expression of the given numbers, each used once, that makes the target.

The final statement holds the expression in a box; boxes are ambiguous if they differ in more than how
signs and spaces are written and whether `= 24` follows.

* The grammar: whole numbers, `+ - * /`, parentheses of all kinds, `\times \cdot \div \frac{a}{b}`
  (`\dfrac`, `\tfrac`), and their Unicode signs. `*` and `/` bind alike, from the left; a minus may stand
  before a factor. Two factors need a sign between them: `2(3)` is no expression. `= 24` may follow; what
  it claims is not looked at if it is a number, and anything else there is no expression.
* Values are exact fractions. Division by zero is wrong, as is anything that does not parse.
* The numbers used are the given ones, each as often as it is given; `12` is not `1` and `2`.

The parser is a loop over two stacks: no recursion, no `eval`, linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction

from recipe.spo.rewards.marked import boxes, conclusion, final_statement, unboxed
from recipe.spo.rewards.verdict import Reason, Verdict

MAX_LENGTH = 400
MAX_NUMBERS = 16
MAX_DIGITS = 9

_RENAMED = {
    **dict.fromkeys("\u2212\u2013", "-"),
    **dict.fromkeys(["\u00d7", "\u22c5", "\u00b7", r"\times", r"\cdot", r"\ast"], "*"),
    **dict.fromkeys(["\u00f7", r"\div"], "/"),
    **dict.fromkeys("[{", "("),
    **dict.fromkeys("]}", ")"),
    **dict.fromkeys([r"\dfrac", r"\tfrac"], r"\frac"),
}
_TOKEN = re.compile(r"(?P<number>[0-9]+)|(?P<sign>\\[a-zA-Z]+|.)", re.DOTALL)
_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_NO_MEANING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|\\[,;:! ()]|[$~]")
_CLAIM = re.compile(r"=\s*-?[0-9]+(?:\.[0-9]+)?\s*\Z")
_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3}


class NoExpression(ValueError):
    """The text is no expression of the grammar, or divides by zero."""


def grade(response: str, truth: str) -> Verdict:
    """Grades a response.

    Args:
        response: any text; none raises.
        truth: JSON such as `{"numbers": [1, 5, 5, 5], "target": 24}`; the target is 24 if left out.

    Returns:
        The verdict; its answer is the expression in plain signs, without spaces.

    Raises:
        ValueError: the ground truth is not such JSON.
    """
    numbers, target = read_truth(truth)
    text = conclusion(response)
    marked = final_statement(text, boxes(text))
    forms = {None if box.text is None else _written(box.text) for box in marked}
    if not forms or forms == {None}:
        return Verdict(Reason.NO_ANSWER)
    if len(forms) > 1:
        return Verdict(Reason.AMBIGUOUS)
    (expression,) = forms
    try:
        value, used = evaluate(marked[0].text)
    except NoExpression:
        return Verdict(Reason.WRONG, expression)
    right = value == target and sorted(used) == sorted(numbers)
    return Verdict(Reason.CORRECT if right else Reason.WRONG, expression)


def _written(text: str) -> str:
    """Writes an expression one way, so that equal ones vote alike; what is none as it stands, without spaces."""
    try:
        tokens = _tokens(_CLAIM.sub("", _plain(text)))
    except NoExpression:
        return _plain(text)
    return _SPACE.sub("", " ".join(map(str, tokens)).replace("frac(", "("))


def read_truth(truth: str) -> tuple[list[int], Fraction]:
    """Reads a puzzle: its numbers and its target; raises ValueError if it is none."""
    try:
        puzzle = json.loads(truth)
        numbers, target = puzzle["numbers"], puzzle.get("target", 24)
        if numbers and all(type(number) is int and number >= 0 for number in numbers):
            return list(numbers), Fraction(target)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise ValueError(f'ground truth {truth!r} is not {{"numbers": [1, 5, 5, 5], "target": 24}}; prepare the data again')


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """Computes an expression exactly.

    Args:
        expression: the text, as it stands in the box.

    Returns:
        Its value and the numbers in it, in order.

    Raises:
        NoExpression: it is none, divides by zero, or is longer than any solution.
    """
    tokens = _tokens(_CLAIM.sub("", _plain(expression)))
    values: list[Fraction] = []
    waiting: list[str] = []
    used: list[int] = []
    operand_next = True
    for token in tokens:
        if isinstance(token, int):
            if not operand_next or len(used) == MAX_NUMBERS:
                raise NoExpression(expression)
            used.append(token)
            values.append(Fraction(token))
            operand_next = False
        elif token in ("(", "frac("):
            if not operand_next:
                raise NoExpression(expression)
            waiting.append(token)
        elif token in (")", ")/("):
            if operand_next:
                raise NoExpression(expression)
            opened = _reduce(values, waiting)
            if opened != ("frac(" if token == ")/(" else "("):
                raise NoExpression(expression)
            if token == ")/(":
                waiting += ["/", "("]
                operand_next = True
        elif operand_next:
            if token != "-":
                raise NoExpression(expression)
            waiting.append("negative")
        else:
            while waiting and _STRENGTH.get(waiting[-1], 0) >= _STRENGTH[token]:
                _apply(values, waiting.pop())
            waiting.append(token)
            operand_next = True
    if operand_next or _reduce(values, waiting) or len(values) != 1:
        raise NoExpression(expression)
    return values[0], used


def _plain(text: str) -> str:
    """Takes out what has no meaning; a space between digits parts two numbers, and stays."""
    return _SPACE.sub("", " ".join(_NO_MEANING.sub(" ", unboxed(text)).split()))


def _tokens(text: str) -> Sequence[int | str]:
    r"""Numbers and signs; `\frac{a}{b}` becomes `( frac( a )/( b ) )`, so that it binds as one."""
    if len(text) > MAX_LENGTH:
        raise NoExpression(text)
    found: list[int | str] = []
    braces: list[str] = []  # what each open bracket is for
    fraction = ""  # "top" or "bottom" if the next bracket opens that part
    for match in _TOKEN.finditer(text):
        number, sign = match["number"], match["sign"]
        sign = _RENAMED.get(sign, sign)
        opens = {"(": "(", "{": "("}.get(sign or "")
        if fraction and not (opens and match[0] == "{"):
            raise NoExpression(text)
        if number:
            if len(number) > MAX_DIGITS:
                raise NoExpression(text)
            found.append(int(number))
        elif sign == r"\frac":
            fraction = "top"
        elif opens:
            braces.append(fraction or "plain")
            found += {"top": ["(", "frac("], "bottom": [], "": ["("]}[fraction]
            fraction = ""
        elif sign == ")":
            if not braces:
                raise NoExpression(text)
            closed = braces.pop()
            if closed == "top":
                found.append(")/(")
                fraction = "bottom"
            else:
                found += [")", ")"] if closed == "bottom" else [")"]
        elif sign in _STRENGTH:
            found.append(sign)
        else:
            raise NoExpression(text)
    if fraction or braces:
        raise NoExpression(text)
    return found


def _reduce(values: list[Fraction], waiting: list[str]) -> str:
    """Applies what waits down to the last open bracket, which it takes off and returns; "" if none."""
    while waiting:
        top = waiting.pop()
        if top in ("(", "frac("):
            return top
        _apply(values, top)
    return ""


def _apply(values: list[Fraction], sign: str) -> None:
    right = values.pop()
    if sign == "negative":
        values.append(-right)
        return
    left = values.pop()
    if sign == "/" and not right:
        raise NoExpression("division by zero")
    values.append({"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[sign](right))
