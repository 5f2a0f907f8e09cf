r"""The unit or noun at the end of a quantity: `5\text{ cm}^{2}`, `90^\circ`, `7\text{ integers}`.

`\pmod{7}` or `\text{(mod 7)}` at the end is taken as a unit too: it says of what kind the number is.
"""

from __future__ import annotations

import re

_UNITS = {
    name: unit
    for unit, names in {
        "dollar": "dollar dollars usd",
        "cent": "cent cents",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "in": "in inch inches",
        "ft": "ft foot feet",
        "yd": "yd yard yards",
        "mi": "mi mile miles",
        "s": "s sec second seconds",
        "min": "min minute minutes",
        "h": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years",
        "g": "g gm gram grams",
        "kg": "kg kilogram kilograms",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "liter": "l liter liters litre litres",
        "ml": "ml milliliter milliliters",
        "gallon": "gallon gallons",
        "degree": "degree degrees",
        "mi/h": "mph",
        "am": "am a.m",
        "pm": "pm p.m",
        "unit": "unit units",
    }.items()
    for name in names.split()
}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
#: Words that say something about the number: with one of them it is another number, or two.
_NO_UNIT = frozenset(
    "a an and or to not no than of by plus minus times over mod more less fewer most least only about "
    "hundred thousand million billion trillion dozen hundreds thousands millions billions trillions dozens "
    "half halves third thirds quarter quarters tenth tenths hundredth hundredths percent percentage "
    "squared cubed factorial is are if for when where".split()
)
_WORDED = "|".join(sorted((name for name in _UNITS if len(name) > 2 and "." not in name), key=len, reverse=True))
_UNIT = re.compile(
    r"(?<=[0-9a-zA-Z})%]) ?(?:\\text ?\{(?P<text>[^{}]*)\}"
    rf"|(?P<bare>(?:(?:square|cubic|sq|cu) )?(?:{_WORDED}|(?<=[0-9] )(?:cm|mm|km|kg|ft)|(?<=[0-9])(?:cm|mm|km|kg)))"
    r"|(?P<degree>\^\\circ))(?:\^\{(?P<power>\d)\})?$",
    re.ASCII,
)
_MODULUS = re.compile(
    r" ?(?:\\pmod ?(?:\{ ?(\w+) ?\}|(\w))|\\text ?\{ ?\(mod(?:ulo)? ?(\w+)\) ?\}"
    r"|\((?:\\text ?\{ ?mod(?:ulo)? ?\}|(?:\\b?)?mod(?![a-zA-Z])) ?(\w+)\))$",
    re.ASCII,
)
_PER = re.compile(r" per |/")


def without_unit(text: str) -> tuple[str, str]:
    r"""Takes the unit off the end of a quantity in normal form.

    A unit is one or two words, or two of them with `per` or `/` between. What else follows a number
    (`2\text{ and a half}`, `5\text{ million}`) is part of what it says and stays.

    Args:
        text: such as `5\text{ cm}^{2}` or `90^\circ`.

    Returns:
        The rest, and the unit in a common form (`cm2`, `mi/h`), of other words the last (`distinct
        integers` gives `integer`); "" if there is none.
    """
    modulus = _MODULUS.search(text)
    if modulus and modulus.start():
        return text[: modulus.start()], f"mod {modulus[modulus.lastindex]}"
    match = _UNIT.search(text)
    if match is None or text.startswith(r"\text"):
        return text, ""
    rest = text[: match.start()].rstrip()
    if match["degree"]:
        return rest, "degree"
    found = [_unit(part) for part in _PER.split((match["text"] or match["bare"]).lower())]
    if not all(found) or len(found) > 2:
        return text, ""
    return rest, "/".join(found) + (match["power"] or "")


def _unit(text: str) -> str:
    """The common form of one or two words, "" if they are no unit."""
    words = [word.rstrip(".") for word in text.split()]
    if len(words) not in (1, 2) or not all(word in _UNITS or (word.isalpha() and word.isascii()) for word in words):
        return ""
    if _NO_UNIT & set(words):
        return ""
    power = _POWERS.get(words[0], "") if len(words) == 2 else ""
    if power:
        words = words[1:]
    known = [_UNITS[word] for word in words if word in _UNITS]  # `degrees Celsius`, `feet tall`
    return (known[0] if known else words[-1].removesuffix("s")) + power
