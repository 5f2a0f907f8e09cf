r"""When two answers, taken apart by `answers`, are the same.

* Brackets matter: `(1,2)` is neither `[1,2]` nor `1,2` nor `\{1,2\}`, and order does: it is not `(2,1)`.
* A point is `(3,-2)`, `x=3, y=-2` or a vector with these entries.
* A set and a bare list are the same and have no order; `1\pm 2` is the list of its two values. A list
  of whole words has an order (a ranking); one of letters, numbers and expressions has none.
* Words are compared as words, whatever their case: `\text{(A)}` is `A`. Words within mathematics that
  are not a unit make it incomparable.
* `x=5` is `5`, and not `y=5`; `x\in[1,2]` is `[1,2]`. Another equation is no number: `2x=10` is not `10`.
  `(x,y)=(5,6)` is `(5,6)` and `(y,x)=(6,5)`, and not `(a,b)=(5,6)`: other names say something else.
  A chain counts by its last part, and must hold where it is plain arithmetic: `2+3=5` is `5`, `2=5` is not.
* What is not worked out counts (`5!`, `2^{2^{2}}`), except an integral, a limit, a sum or a product with
  an index: finding its value was the question.
* `1:2` is only `1:2`, not its quotient.
* Numbers by `plain_number`; other expressions by algebra, which is asked only for these. Of two forms
  of one value (`(x+1)^2`, `x^2+2x+1`) each counts, even where a question asks for one.

`same` has a third answer, None: this needs algebra. So most answers are graded without any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from recipe.spo.rewards.answers import EQUALS, INEQUALITY, Answer, text_key
from recipe.spo.rewards.plain_number import read_number, same_number
from recipe.spo.rewards.units import without_unit

#: Says whether two expressions in normal form (gold, predicted) are equal; None if it cannot say.
Algebra = Callable[[str, str], bool | None]

_UNEVALUATED = re.compile(r"\\(?:i*int|oint|lim|sum|prod)(?![a-zA-Z])")


def same(gold: Answer, predicted: Answer, algebra: Algebra) -> bool | None:
    """Compares two answers.

    Args:
        gold: the right one.
        predicted: the other one.
        algebra: is asked where both are expressions that are no plain numbers.

    Returns:
        Whether they are the same; None if algebra could not say where it mattered.
    """
    if gold.whole and gold.whole == predicted.whole:
        return True
    found = _same_value(gold, predicted, algebra)
    if found is False or not predicted.chain:
        return found
    value = replace(predicted, chain=(), name="", whole=predicted.text)
    holds = [same(side, value, algebra) for side in predicted.chain]
    return False if False in holds else None if None in holds else found


def _same_value(gold: Answer, predicted: Answer, algebra: Algebra) -> bool | None:
    if "text" in (gold.kind, predicted.kind):
        return not (len(gold.parts) > 1 or len(predicted.parts) > 1) and text_key(gold.whole) == text_key(
            predicted.whole
        )
    if gold.name and predicted.name and gold.name != predicted.name:
        if gold.name[0] == predicted.name[0] == "(":
            predicted = _renamed(predicted, gold.name)
            return predicted is not None and _same_value(gold, predicted, algebra)
        if gold.name[0] in "(|[" or predicted.name[0] in "(|[":
            return False
        return (
            _by_algebra(gold.whole, predicted.whole, algebra) if "=" in gold.whole and "=" in predicted.whole else False
        )
    if gold.kind == predicted.kind and gold.kind != "one":
        if gold.kind == "matrix" and gold.shape != predicted.shape:
            return False
        if gold.kind == "group" and gold.shape != predicted.shape:
            return False
        if len(gold.parts) == len(predicted.parts):
            ordered = gold.kind in ("group", "matrix") or (gold.shape == predicted.shape == "ordered")
            match = _in_order if ordered else _in_any_order
            found = match(gold.parts, predicted.parts, algebra)
        else:
            found = False
        return found or (_asked(gold, predicted, algebra) if gold.kind == "union" else found)
    for one, several in ((gold, predicted), (predicted, gold)):
        if several.kind == "list" and len(several.parts) == 1 and one.kind != "list":
            pair = (one, several.parts[0])
            return same(*(pair if one is gold else pair[::-1]), algebra)
    for one, several in ((gold, predicted), (predicted, gold)):
        if one.kind == "group" and one.shape == "()" and _is_point(several) and len(one.parts) == len(several.parts):
            return _in_order(gold.parts, predicted.parts, algebra)
    if {gold.kind, predicted.kind} == {"union", "list"} and len(gold.parts) == len(predicted.parts):
        several = predicted if predicted.kind == "list" else gold
        if all(INEQUALITY.search(part.text) for part in several.parts):  # x<0 or x>1
            return _in_any_order(gold.parts, predicted.parts, algebra)
    if "list" in (gold.kind, predicted.kind) or "matrix" in (gold.kind, predicted.kind):
        return False
    if gold.kind == predicted.kind == "one":
        return _same_expression(gold, predicted, algebra)
    return _asked(gold, predicted, algebra)  # an interval and an inequality, say


def _renamed(answer: Answer, name: str) -> Answer | None:
    """An answer such as `(y,x)=(6,5)` with its parts in the order of another name, None if the names are others."""
    ours, theirs = ([part.strip() for part in each[1:-1].split(",")] for each in (answer.name, name))
    if answer.kind != "group" or sorted(ours) != sorted(theirs) or len(answer.parts) != len(set(ours)):
        return None
    parts = tuple(answer.parts[ours.index(part)] for part in theirs)
    return replace(answer, name=name, parts=parts, whole="")


def _is_point(answer: Answer) -> bool:
    """Whether these are the coordinates of one point: `x=3, y=-2`, or a matrix of one row or column."""
    if answer.kind == "matrix":
        sizes = set(answer.shape.strip("[]").split(", ")) if not answer.shape.startswith("|") else set()
        return sizes == {"1"} or answer.shape == f"[{len(answer.parts)}]"
    names = [part.name for part in answer.parts]
    return answer.kind == "list" and all(names) and names == sorted(set(names))


def _same_expression(gold: Answer, predicted: Answer, algebra: Algebra) -> bool | None:
    (left, unit), (right, other) = without_unit(gold.text), without_unit(predicted.text)
    if unit and other and unit != other:
        return False
    if left == right:
        return True
    numbers = read_number(left, unit), read_number(right, other)
    if all(numbers):
        return same_number(*numbers)
    if ":" in left + right:
        gold_parts, parts = left.split(":"), right.split(":")
        read = [(read_number(a), read_number(b)) for a, b in zip(gold_parts, parts, strict=False)]
        return len(gold_parts) == len(parts) and all(a and b and same_number(a, b) for a, b in read)
    equations = "=" in gold.whole and "=" in predicted.whole and not numbers[0]  # y=x+1, y-x=1
    if equations or (gold.name and predicted.name):
        return _by_algebra(gold.whole, predicted.whole, algebra)
    if EQUALS.search(left) is None and EQUALS.search(right):
        return False
    return _by_algebra(left, right, algebra)


def _asked(gold: Answer, predicted: Answer, algebra: Algebra) -> bool | None:
    if "=" in gold.text or "=" in predicted.text:
        return False
    return _by_algebra(gold.text, predicted.text, algebra)


def _by_algebra(gold: str, predicted: str, algebra: Algebra) -> bool | None:
    if _UNEVALUATED.search(predicted) and not _UNEVALUATED.search(gold):
        return False
    return algebra(gold, predicted)


def _in_order(gold: Sequence[Answer], predicted: Sequence[Answer], algebra: Algebra) -> bool | None:
    unsure = False
    for one, other in zip(gold, predicted, strict=True):
        found = same(one, other, algebra)
        if found is False:
            return False
        unsure |= found is None
    return None if unsure else True


def _in_any_order(gold: Sequence[Answer], predicted: Sequence[Answer], algebra: Algebra) -> bool | None:
    left, unsure = list(predicted), False
    for one in gold:
        found = [same(one, other, algebra) for other in left]
        if True in found:
            del left[found.index(True)]
        elif None in found:
            unsure = True
        else:
            return False
    return None if unsure else True
