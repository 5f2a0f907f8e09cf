"""Which four numbers make a target with + - * / and parentheses, each used once; exact, in fractions."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import combinations, combinations_with_replacement

Numbers = tuple[int, ...]


def puzzles(max_number: int, target: int) -> Iterator[tuple[Numbers, str]]:
    """Enumerates the multisets of four numbers that make the target.

    Args:
        max_number: Greatest number; the least is 1.
        target: The value to make.

    Yields:
        The numbers in ascending order and one expression of them with the value, in lexical order of the numbers.
    """
    for numbers in combinations_with_replacement(range(1, max_number + 1), 4):
        expression = solve(numbers, target)
        if expression is not None:
            yield numbers, expression


def solve(numbers: Numbers, target: int) -> str | None:
    """Finds an expression of all numbers, each used once, with the value of the target; None where there is none."""
    for left, right in _partings(tuple(sorted(numbers))):
        reached = _reach(right)
        for value, expression in _reach(left).items():
            for needed, form in _partners(value, Fraction(target)):
                if needed in reached:
                    return form.format(_inner(expression), _inner(reached[needed]))
    return None


@cache
def _reach(numbers: Numbers) -> dict[Fraction, str]:
    """Gives every value that the numbers can make, with an expression for it."""
    if len(numbers) == 1:
        return {Fraction(numbers[0]): str(numbers[0])}
    values: dict[Fraction, str] = {}
    for left, right in _partings(numbers):
        for a, first in _reach(left).items():
            for b, second in _reach(right).items():
                first_in, second_in = _inner(first), _inner(second)
                values.setdefault(a + b, f"{first_in} + {second_in}")
                values.setdefault(a * b, f"{first_in} * {second_in}")
                values.setdefault(a - b, f"{first_in} - {second_in}")
                values.setdefault(b - a, f"{second_in} - {first_in}")
                if b:
                    values.setdefault(a / b, f"{first_in} / {second_in}")
                if a:
                    values.setdefault(b / a, f"{second_in} / {first_in}")
    return values


def _partings(numbers: Numbers) -> list[tuple[Numbers, Numbers]]:
    """Parts the numbers in two, in every way; the parts stay sorted."""
    places = range(len(numbers))
    parts = {}
    for size in range(1, len(numbers) // 2 + 1):
        for chosen in combinations(places, size):
            left = tuple(numbers[i] for i in chosen)
            right = tuple(numbers[i] for i in places if i not in chosen)
            parts[left, right] = None
    return list(parts)


def _partners(a: Fraction, target: Fraction) -> Iterator[tuple[Fraction, str]]:
    """Gives the b for which one operation on a and b makes the target, and the form of the operation."""
    yield target - a, "{0} + {1}"
    yield a - target, "{0} - {1}"
    yield target + a, "{1} - {0}"
    if a:
        yield target / a, "{0} * {1}"
        yield target * a, "{1} / {0}"
        if target:
            yield a / target, "{0} / {1}"


def _inner(expression: str) -> str:
    return f"({expression})" if " " in expression else expression
