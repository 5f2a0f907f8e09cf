"""Reward for answers in GSM8K's format: the last `####` of the response, graded exactly.

The rule, in full:

1. The answer stands on the line of the last `####`, after it. No `####`, no answer.
2. It is the first number on that line: digits, optionally with thousands commas, a decimal part, a
   minus, and a dollar sign before or after the minus. What follows the number does not matter.
3. Commas must group by threes: `1,234` is 1234, while `12,34` is no answer. Neither is a number
   of more than `MAX_DIGITS` digits. Fractions and exponents are not read.
4. It is right if it equals the ground truth exactly: `18`, `18.0` and `$18.00` are equal.
"""

import re
from decimal import Decimal
from typing import Any

MARKER = "####"
MAX_DIGITS = 64

_SIGN = r"[-\u2212]?\$?|\$[-\u2212]"
_NUMBER = re.compile(rf"(?P<sign>{_SIGN})(?P<digits>[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)")
_WELL_GROUPED = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+)?")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float | str]:
    """Grades a response; verl's custom reward function.

    Args:
        data_source: Not used; part of verl's signature.
        solution_str: The response. Any text is graded, none raises.
        ground_truth: The right answer, a number.
        extra_info: Not used; part of verl's signature.
        **kwargs: Not used; part of verl's signature.

    Returns:
        `score` and `acc`, both 1.0 or 0.0, and `pred`, the answer in shortest form ("" if none).

    Raises:
        ValueError: The ground truth is not a number; the data is wrong, not the response.
    """
    truth = parse_number(ground_truth)
    if truth is None:
        raise ValueError(f"ground truth {ground_truth!r} is not a number; prepare the data again")
    answer = extract_answer(solution_str)
    right = float(answer == truth)
    return {"score": right, "acc": right, "pred": "" if answer is None else shortest(answer)}


def extract_answer(text: str) -> Decimal | None:
    """Finds the answer in a response, None if there is none."""
    _, marker, tail = text.rpartition(MARKER)
    return parse_number(tail.split("\n", 1)[0]) if marker else None


def parse_number(line: str) -> Decimal | None:
    """Reads the first number of a line exactly, None if it has none or a malformed one."""
    match = _NUMBER.search(line)
    if match is None:
        return None
    digits = match["digits"]
    if sum(map(str.isdigit, digits)) > MAX_DIGITS or not _WELL_GROUPED.fullmatch(digits):
        return None
    sign = "-" if match["sign"].strip("$") else ""
    return Decimal(sign + digits.replace(",", ""))


def shortest(number: Decimal) -> str:
    """Writes a number without needless zeros, so that equal answers vote alike."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
