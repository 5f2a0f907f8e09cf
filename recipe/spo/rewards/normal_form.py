r"""One way of writing for what LaTeX writes in many: `\dfrac12` is `\frac{1}{2}`, `10{,}000` is `10000`.

Only the look changes, never the value. Pure string work of bounded length; nothing is evaluated.
"""

from __future__ import annotations

import re

from recipe.spo.rewards.marked import MAX_ANSWER, unboxed

_SYMBOLS = {
    **dict.fromkeys("\u2212\u2012\u2013\u2014", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2005\u2009\u200a\u202f", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "\u00d7": r"\times ",
    "\u00f7": r"\div ",
    "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u03c0": r"\pi ",
    "\u221e": r"\infty ",
    "\u221a": r"\sqrt ",
    "\u00b0": r"^\circ ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2205": r"\emptyset ",
    "\u2208": r"\in ",
    "\u00b1": r"\pm ",
    "\u00b2": "^2",
    "\u00b3": "^3",
    "\u00bd": r"\frac{1}{2}",
    "\u00bc": r"\frac{1}{4}",
    "\u00be": r"\frac{3}{4}",
    "\u2019": "'",
}
_TRANSLATION = str.maketrans(_SYMBOLS | {chr(code): " " for code in [*range(32), *range(127, 160)]})


def _rules(*pairs: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern, re.ASCII), replacement) for pattern, replacement in pairs]


_END = r"(?![a-zA-Z])"
_RULES = _rules(
    # delimiters of mathematics within the answer; `\$` is money and stays
    (r"(?<!\\)\$|(?<!\\)\\[()]|^ *\\\[|\\\] *$", ""),
    # thousands: 10{,}000, 10,\!000, 111, \! 111, 10\,000
    (r"(?<=\d) ?(?:\{, ?\}|, ?\\!|\\,) ?(?=\d{3}(?!\d))", ""),
    # spacing and size
    (rf"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|quad|qquad){_END}\.?|(?<!\\)\\[,;:!> ]|~", " "),
    (r" +", " "),
    # 100, 200 is a list; 100,200 is a number
    (r"(?<=\d) ?, (?=\d{3}(?!\d))", ";"),
    (rf"\\[dtc]frac{_END}", r"\\frac"),
    (rf"\\(?:leq|leqslant|leqq){_END}", r"\\le "),
    (rf"\\(?:geq|geqslant|geqq){_END}", r"\\ge "),
    (rf"\\neq{_END}", r"\\ne "),
    (rf"\\lt{_END}", "<"),
    (rf"\\gt{_END}", ">"),
    (rf"\\(?:lbrace){_END}", r"\\{"),
    (rf"\\(?:rbrace){_END}", r"\\}"),
    (rf"\\langle{_END}", "("),
    (rf"\\rangle{_END}", ")"),
    (rf"\\(?:lvert|rvert|vert){_END}", "|"),
    (r"\{ ?([^{}\\]+?) ?\\choose(?![a-zA-Z]) ?([^{}\\]+?) ?\}", r"\\binom{\1}{\2}"),
    (r"^ ?([^{}\\]+?) ?\\choose(?![a-zA-Z]) ?([^{}\\]+?) ?$", r"\\binom{\1}{\2}"),
    (rf"\\varnothing{_END}|\\{{ *\\}}", r"\\emptyset "),
    (r"\^ ?\{ ?\\(?:circ|degree) ?\}|\^ ?\\circ(?![a-zA-Z])|\\degree(?![a-zA-Z])", r"^\\circ "),
    # all faces of text are \text, and \text{x} of one letter is a letter
    (rf"\\(?:math(?:rm|bf|it|sf)|text(?:rm|bf|it|sf|normal)|mbox|operatorname|boldsymbol){_END} ?", r"\\text"),
    (r"\\text ?\{ *([-+]?\d[\d.,:/]*) *([a-zA-Z. ]*)\}", r"\1\\text{\2}"),
    (r"(?<=\d) ?\\text ?\{ *thousand(?![a-zA-Z])", r"\\cdot 10^{3}\\text{"),
    (r"(?<=\d) ?\\text ?\{ *million(?![a-zA-Z])", r"\\cdot 10^{6}\\text{"),
    (r"(?<=\d) ?\\text ?\{ *billion(?![a-zA-Z])", r"\\cdot 10^{9}\\text{"),
    (r"\\text ?\{ *\}", ""),
    (r"\{:\}", ":"),
    (r"\\text ?\{ *(?:,? *(?:and|or|And|Or),?|,) *\}", ","),
    (r"(?<![a-zA-Z\\]),? *(?<![a-zA-Z])(?:and|or)(?![a-zA-Z]),?", ","),
    (r"(?: *, *){2,}", ","),
    (r"(?<![0-9}])(?<![0-9}] )\\text ?\{ *([a-zA-Z]) *\}", r" \1"),
    (r"\\ldots|\\cdots|\\dots", "..."),
    # arguments without braces
    (r"\\frac *(\d) *(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac *(\d) *\{", r"\\frac{\1}{"),
    (r"(\\frac *\{[^{}]*\}) *(\d)", r"\1{\2}"),
    (r"\\frac *([a-zA-Z]) *(\d|[a-zA-Z])", r"\\frac{\1}{\2}"),
    (r"\\sqrt *(\d|[a-zA-Z])", r"\\sqrt{\1}"),
    (r"\^ ?(\d|[a-zA-Z])", r"^{\1}"),
    (r"_ ?(\d|[a-zA-Z])", r"_{\1}"),
    # plain percent; degrees without a sign are a unit, see `units`
    (r"\\?%", r"\\%"),
    (r"\\text ?\{ *(?:percent|percentage) *\}|(?<![a-zA-Z])percent(?![a-zA-Z])", r"\\%"),
    (r"(?<![0-9])\.(?=\d)", "0."),
    # degrees that an angle function is of are no unit at the end
    (
        rf"\\(sin|cos|tan|cot|sec|csc){_END} ?(?:(\() ?|\{{ ?)?(\d{{1,9}}) ?\^\\circ ?(?:(?(2)\)|\}}))?",
        r"\\\1(\\frac{\3\\pi}{180})",
    ),
    # spaces that part nothing
    (r" +", " "),
    (r" (?![a-zA-Z0-9\\])|(?<![a-zA-Z0-9}.]) ", ""),
    (r" (?=\\(?!text))", ""),
    (r"(?<=[a-zA-Z0-9]) (?=[(\[])", ""),
    (r"(?<=\}) (?=\d|[a-zA-Z])", ""),
)
_TRAILING = " .,;:"
_LONE_BACKSLASH = re.compile(r"(?<!\\)\\\Z")  # of a spacing `\ ` at the end


def normal_form(answer: str) -> str:
    r"""Writes an answer's LaTeX one way.

    Args:
        answer: what a box holds, or a ground truth; of more than `MAX_ANSWER` characters the rest is cut.

    Returns:
        The same answer. `\text{...}` is kept, spaces only where they part words or numbers.
    """
    text = unboxed(answer[:MAX_ANSWER]).translate(_TRANSLATION)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
        if len(text) > 4 * MAX_ANSWER:  # no rule doubles; a guard against one that comes to
            return text[:MAX_ANSWER]
    text = text.strip().rstrip(_TRAILING).lstrip(" ,;")
    text = _LONE_BACKSLASH.sub("", text).rstrip(_TRAILING)
    while len(text) > 1 and text[0] == "{" and _closes_last(text):
        text = text[1:-1].strip()
    return text


def _closes_last(text: str) -> bool:
    """Says whether the brace at 0 closes at the end."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if not depth:
            return token.end() == len(text)
    return False
