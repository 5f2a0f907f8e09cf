r"""What an answer is made of: it is taken apart here and compared in `equality`.

An answer is text, a list, an ordered group in brackets, a matrix, a union, or a single expression.
Groups are taken apart here, so that the rules of `equality` hold whatever a computer algebra system makes
of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from recipe.spo.rewards.normal_form import normal_form
from recipe.spo.rewards.plain_number import read_number
from recipe.spo.rewards.units import without_unit

MAX_PARTS = 40
MAX_DEPTH = 4

_TOKEN = re.compile(r"\\[{}]|\\.|[()\[\]{},;]", re.DOTALL)
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_ALL_TEXT = re.compile(r"\\text ?\{[^{}]*\}(?: ?\\text ?\{[^{}]*\}|[0-9 .,:()/-])*")
_WORDS = re.compile(r"(?!(?:sin|cos|tan|sec|csc|cot|log|sqrt|inf))[A-Za-z][A-Za-z .'-]*")
_WORD = re.compile(r"[A-Za-z]{3}|[A-Z]{2}")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_LETTER = r"(?:[A-Za-z]|\\[a-zA-Z]+)(?:_\{\w+\})?"
_NAME = (
    r"[A-Za-z](?:_\{\w+\})?(?:(?:\^\{-1\})?\([a-zA-Z](?:, ?[a-zA-Z])*\))?|[A-Z]{2,3}|\\[a-zA-Z]+"
    r"|\\(?:angle|overline|text)[ {]*[A-Za-z ]+\}?|\|[A-Z]{2}\||\[[A-Z]{3,}\]"
    rf"|\({_LETTER}(?:, ?{_LETTER})+\)"
)
_ASSIGNED = re.compile(rf"({_NAME}) ?(?:=|\\(?:in|equiv)(?![a-zA-Z]))(.*)", re.DOTALL)
INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![a-zA-Z])")
EQUALS = re.compile(r"(?<![<>:])(?<![^0-9)]!)=(?![<>])")  # `5!=120` is a factorial
_ARITHMETIC = re.compile(r"(?!.*\.\.)(?:[-+*/^(){}0-9.! ]|\\(?:frac|sqrt|cdot|times|div|pi|%)(?![a-zA-Z]))+")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z]) ?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer taken apart.

    Attributes:
        kind: "text", "list", "group", "matrix", "union" or "one".
        text: its normal form, without the name that it is assigned to.
        parts: what it is made of; of a matrix its entries row by row.
        shape: what must agree beside the parts: brackets of a group, size of a matrix.
        name: the name that it is assigned to, "" if none.
        whole: its normal form with the name.
        chain: what it is said to equal besides, where that is plain arithmetic: of `x=2+3=5` it is `2+3`.
    """

    kind: str
    text: str
    parts: tuple[Answer, ...] = ()
    shape: str = ""
    name: str = ""
    whole: str = ""
    chain: tuple[Answer, ...] = ()


def read(answer: str) -> Answer:
    """Takes an answer apart; any text has a reading."""
    return _read(normal_form(answer), 0)


def _read(text: str, depth: int) -> Answer:
    if _ALL_TEXT.fullmatch(text) or (_WORDS.fullmatch(text) and _WORD.search(text)):
        words = _TEXT.sub(r"\1", text)
        items = [item for item in re.split("[,;]", words) if item.strip()]
        if len(items) > 1:
            parts = tuple(Answer("text", item, whole=item) for item in items)
            return Answer("list", text, parts, "ordered" if all(len(text_key(item)) > 1 for item in items) else "")
        return Answer("text", words, whole=text)
    name, value, sides = _assigned(text)
    kind, parts, shape = _taken_apart(value) if depth < MAX_DEPTH else ("one", [], "")
    chain = tuple(_read(side, depth + 1) for side in sides[:MAX_PARTS] if _ARITHMETIC.fullmatch(side))
    if kind == "inner":
        inner = _read(parts[0], depth + 1)
        return Answer(inner.kind, inner.text, inner.parts, inner.shape, name or inner.name, text, chain or inner.chain)
    return Answer(kind, value, tuple(_read(part, depth + 1) for part in parts), shape, name, text, chain)


def _assigned(text: str) -> tuple[str, str, list[str]]:
    """Splits `x=5` and `x=2+3=5` into a name, the last value and those before; other equations stay whole."""
    if len(_split(_THOUSANDS.sub("", text)) or "") != 1:
        return "", text, []
    match = _ASSIGNED.fullmatch(text)
    if match and not INEQUALITY.search(match[2]):
        *sides, value = EQUALS.split(match[2])
        return match[1].strip(), value.strip(), sides
    sides = EQUALS.split(text)
    if len(sides) > 1 and not re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)):
        return "", sides[-1].strip(), sides[:-1]  # 2+3=5
    return "", text, []


def _taken_apart(text: str) -> tuple[str, list[str], str]:
    if read_number(without_unit(text)[0]):
        return "one", [], ""
    matrix = _MATRIX.fullmatch(text)
    if matrix and r"\begin" not in matrix[2]:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix[2].strip()) if row.strip()]
        kind = "|" if matrix[1] in ("vmatrix", "Vmatrix") else ""
        cells = [normal_form(cell) for row in rows for cell in row]
        if len(cells) <= MAX_PARTS:
            return "matrix", cells, f"{kind}{[len(row) for row in rows]}"
    parts = _split(text)
    if parts is None or len(parts) > MAX_PARTS:
        return "one", [], ""
    if len(parts) > 1:
        return "list", _both_signs(parts), ""
    for begin, end in (("\\{", "\\}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        if text.startswith(begin) and text.endswith(end):
            inside = _split(text[len(begin) : -len(end)])
            if inside is None or len(inside) > MAX_PARTS:
                continue
            if begin == "\\{":
                return "list", _both_signs(inside), ""
            if len(inside) > 1:
                return "group", inside, begin + end
            if begin + end == "()":
                return "inner", inside, ""
    if r"\cup" in text:
        sets = [part.strip() for part in re.split(r"\\cup(?![a-zA-Z])", text)]
        if all(len(_split(part) or "") == 1 for part in sets):
            return "union", sets, ""
    both = _both_signs(parts)
    return ("list", both, "") if len(both) > 1 else ("one", [], "")


def _both_signs(parts: list[str]) -> list[str]:
    r"""Writes each `a\pm b` as two, `a+b` and `a-b`."""
    found = []
    for part in parts:
        if len(_PLUS_MINUS.findall(part)) == 1 and r"\mp" not in part:
            found += [_PLUS_MINUS.sub(sign, part).removeprefix("+") for sign in "+-"]
        else:
            found.append(part)
    return found


def _split(text: str) -> list[str] | None:
    """Splits at commas and semicolons outside of brackets; None if brackets do not balance."""
    parts, begin, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in ("(", "[", "{", "\\{"):
            depth += 1
        elif mark in (")", "]", "}", "\\}"):
            depth -= 1
            if depth < 0:
                return None
        elif mark in ",;" and not depth:
            parts.append(text[begin : token.start()].strip())
            begin = token.end()
    parts.append(text[begin:].strip())
    return None if depth else [part for part in parts if part] or [""]


def text_key(text: str) -> str:
    """Text as it is compared: letters, digits and what parts numbers."""
    words = _TEXT.sub(r"\1", text).casefold()
    return re.sub(r"(?<!\d)[.,]|[.,](?!\d)|[\s'\"()$]", "", words)


def vote(answer: Answer) -> str:
    """Writes an answer so that equal ones vote alike, as far as is cheap.

    Equal are: all ways of writing a number, of spacing and of faces, lists in any order. Not equal, for
    want of algebra: two forms of an expression, such as `(x+1)^2` and `x^2+2x+1`.
    """
    if answer.kind == "text":
        words = text_key(answer.text)
        return words.upper() if len(words) == 1 else words  # a choice, `(A)` or `A`
    if answer.kind == "one":
        text, unit = without_unit(answer.text)
        number = read_number(text, unit)
        return str(number) if number else text.replace(" ", "")
    votes = [vote(part) for part in answer.parts]
    if answer.kind in ("list", "union") and answer.shape != "ordered":
        votes.sort()
    joined = {"union": "|", "matrix": "&"}.get(answer.kind, ",").join(votes)
    begin, end = answer.shape if answer.kind == "group" else ("", "")
    return f"{begin}{joined}{end}"
