r"""Numbers as answers write them, read exactly: `1,234`, `1\frac{1}{2}`, `0.\overline{3}`, `10\%`, `\$5`, `101_2`.

What a number is annotated with is kept apart from its value, and compared by one rule: an annotation
that one side leaves out is not held against it, one that differs is.

* A unit: `5\text{ cm}` equals `5` and `5` centimetres, not `5\text{ m}`. Only units known here differ.
* A base: `101_2` equals `101_{\text{two}}` and the bare digits `101` (the question names the base), not
  `101_3` and not `5`. Where only the prediction has a base (but ten), it is different.
* Percent: `10\%` equals `10` (it was asked for in percent) and `0.1` (its value); `0.1` is not `10`.

Values are equal exactly, with one exception: a prediction with six or more decimals equals a value that
rounds to it, so `0.333333` is `1/3` while `0.33` is not. Zero is only zero, however many decimals it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

#: Decimals from which on a rounded prediction counts.
ENOUGH_DECIMALS = 6

_GROUPED = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+|\d+(?:\.\d*)?|\.\d+"
_SIMPLE = rf"[-+]?(?:{_GROUPED})"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:\\\$)?(?P<inner>[-+]?)(?:"
    rf"(?P<whole>\d+)? ?\\frac\{{ ?(?P<top>{_SIMPLE}) ?\}}\{{ ?(?P<bottom>{_SIMPLE}) ?\}}"
    rf"|(?:(?P<whole2>\d+) )?(?P<top2>{_GROUPED}) ?/ ?(?P<bottom2>\d+)"
    r"|(?P<start>\d*\.\d*)\\(?:overline|bar)\{(?P<cycle>\d+)\}"
    rf"|(?P<decimal>{_GROUPED})(?: ?\\(?:times|cdot) ?10\^(?:\{{(?P<power>[-+]?\d{{1,3}})\}}|(?P<power2>\d)))?"
    rf"|(?P<digits>[0-9A-Z]+)_(?:\{{(?P<base>\d+|\\text\{{ ?[a-z]+ ?\}})\}}|(?P<base2>\d))"
    rf") ?(?P<percent>\\%)?",
    re.ASCII,
)
_BASES = {
    name: base
    for base, name in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)
} | {"sixteen": 16}


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written.

    Attributes:
        value: its value; with a base, of its digits read in that base.
        decimals: how many decimals were written.
        percent: whether a percent sign follows.
        unit: its unit in a common form, "" if none or unknown.
        digits: with a base, its sign and digits.
        base: the base that it names, None if none.
    """

    value: Fraction
    decimals: int = 0
    percent: bool = False
    unit: str = ""
    digits: str = ""
    base: int | None = None

    def __str__(self) -> str:
        if self.base is not None:
            return f"{self.digits}_{self.base}"
        return f"{self.value}%" if self.percent else str(self.value)


def read_number(text: str, unit: str = "") -> Number | None:
    """Reads a normalised text that is one number and nothing else; None if it is something else.

    Args:
        text: the text, without its unit.
        unit: the unit that was taken off it.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["inner"]):
        return None
    sign = -1 if "-" in match["sign"] + match["inner"] else 1
    if r"\$" in text:
        unit = "dollar"
    if match["digits"]:
        return _based(match, sign)
    if match["cycle"]:
        after, cycle = match["start"].partition(".")[2], match["cycle"]
        repeated = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(after))
        return Number(sign * (_fraction("0" + match["start"]) + repeated), percent=bool(match["percent"]), unit=unit)
    if match["decimal"]:
        decimal = match["decimal"]
        power = int(match["power"] or match["power2"] or 0)
        value = _fraction(decimal) * Fraction(10) ** power
        decimals = len(decimal.partition(".")[2]) if not power else 0
        return Number(sign * value, decimals, bool(match["percent"]), unit)
    whole, top, bottom = (match[name] or match[name + "2"] for name in ("whole", "top", "bottom"))
    below = _fraction(bottom)
    if not below or (whole and ("-" in top or "-" in bottom)):
        return None
    value = int(whole or 0) + _fraction(top) / below
    return Number(sign * value, 0, bool(match["percent"]), unit)


def same_number(gold: Number, predicted: Number) -> bool:
    """Compares two numbers by the rule of this module."""
    if gold.unit and predicted.unit and gold.unit != predicted.unit:
        return False
    if gold.base is not None:
        if predicted.base is None:
            return gold.digits == str(predicted.value)
        return (gold.base, gold.digits) == (predicted.base, predicted.digits)
    if predicted.base not in (None, 10):
        return False
    if gold.percent == predicted.percent:
        return _equal(gold.value, predicted)
    hundredfold = gold.value / 100 if gold.percent else gold.value * 100
    return _equal(gold.value, predicted) or _equal(hundredfold, predicted)


def _equal(gold: Fraction, predicted: Number) -> bool:
    off = abs(gold - predicted.value)
    rounded = predicted.value and predicted.decimals >= ENOUGH_DECIMALS
    return not off or bool(rounded and 2 * off <= Fraction(1, 10**predicted.decimals))


def _fraction(text: str) -> Fraction:
    text = text.replace(",", "").replace(" ", "")
    return Fraction(text + "0" if text.endswith(".") else text)


def _based(match: re.Match[str], sign: int) -> Number | None:
    named = match["base"] or match["base2"]
    base = int(named) if named.isdigit() else _BASES.get(named[6:-1].strip(), 0)
    digits = match["digits"].lstrip("0") or "0"
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return Number(Fraction(sign * int(digits, base)), digits=("-" if sign < 0 else "") + digits, base=base)
