"""Reward for answers in GSM8K's format: what follows `####`, graded exactly.

The rule, in full, on top of those that all graders share (`verdict`):

1. An answer stands after a `####`, on its line. A heading marks nothing: a `####` without a digit after it,
   `#### Step 2: ...` (or part, case, question and the like), `#### 2. Add them` or `2) ...`, a number of at
   most two digits before words. No other `####`, no answer. Two different answers in the last paragraph
   that has one are ambiguous.
2. It is the one number on that line: digits, optionally with thousands commas, a decimal part, a dollar
   sign, and a minus: a dash before it, or `minus` or `negative`. Words around it do not matter: `18 apples`.
   Of `9 + 9 = 18` what follows the last `=` is read, the rest is not; nor are GSM8K's `<<9+9=18>>`.
3. What makes more or something else of the number cannot be read: a second number (`18 or 19`, `18/5`,
   `18 of 20`), an operation (`18 +`, `10^2`, `18!`, `9 squared`, `two times 9`, `1e5`, a root), a word that
   scales it (`18k`, `18 million`, `2 and a half`, `twice 18`) or denies it (`not 18`, `more than 18`),
   `x = 17, y = 18`. By the shared rule such a line alone is no answer, not an ambiguous one.
4. Commas must group by threes: `1,234` is 1234, while `12,34` cannot be read. Neither can a number
   of more than `MAX_DIGITS` digits.
5. It is right if it equals the ground truth exactly: `18`, `18.0` and `$18.00` are equal.
"""

import re
from decimal import Decimal

from recipe.spo.rewards.marked import Marked, conclusion, final_statement
from recipe.spo.rewards.verdict import Reason, Verdict

MARKER = "####"
MAX_DIGITS = 64

_DIGIT = re.compile("[0-9]")
_MARKED = re.compile(rf"{MARKER}(?P<tail>(?:(?!{MARKER})[^\n])*)")
_NUMBER = re.compile(r"[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+")
_CALCULATION = re.compile("<<[^<>\n]*>>")
_HEADING = re.compile(
    r"(?:[^0-9=]*\bstep|[\s#*_]*(?:part|case|question|problem|example|exercise|section|phase|stage|method|approach))"
    r"[ #*_]*[0-9]|[\s#*_]*[0-9]{1,2}[.)][\s*_]+[^\W\d_]",
    re.IGNORECASE,
)
# Digits that belong to a word, `m^2` or `CO2`, are no second number.
_SECOND = re.compile(r"(?<![a-zA-Z^0-9])[0-9]")
_MINUS = re.compile(r"(?:\b(?:minus|negative)[ \\$*_({]|[-\u2212\u2013])[ \\$*_({]*\Z", re.IGNORECASE)
_DASH_OF_A_SENTENCE = re.compile(r"[a-zA-Z)] +[-\u2212\u2013] \Z")
_APPLIED = re.compile(
    r"(?:sqrt|frac|\\log|[\u221a^/\u00d7\u00f7]|\b(?i:times|twice|double|triple|half(?: of)?|plus|divided by"
    r"|multiplied by|not|than)[ *_$])[({ *_$]*\Z"
)
_BEFORE = 24  # characters before a number that can belong to it; a bound keeps the search linear
_OPERATION = re.compile(
    r"!| *(?:[+^\u00d7\u00f7\u00b7\u22c5\u00b2\u00b3\u00bc-\u00be]|\\(?:times|cdot|div)|/(?! ?[a-zA-Z]{2})"
    r"|[xXeE] ?[-+]?[0-9])|[ *_)]*(?i:squared|cubed|plus|minus|(?:multiplied|divided) by"
    r"|times (?:two|three|four|five|six|seven|eight|nine|ten))\b"
)
_SCALED = re.compile(
    r"[-\s*_$})]*(?:\\text\{ *)?(?:(?i:(?:and (?:an?|one) )?"
    r"(?:hundred|thousand|(?:m|b|tr|quadr)illion|lakh|crore|dozen|half|halve|third|quarter)s?|k|bn|mn)|[MB])\b"
)
_LISTED = re.compile(r"[,;] |\b(?:and|or)\b")
_WELL_GROUPED = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+)?")


def grade(response: str, truth: str) -> Verdict:
    """Grades a response.

    Args:
        response: any text; none raises.
        truth: the right answer, a number; thousands commas are allowed.

    Returns:
        The verdict; its answer is the number in shortest form.

    Raises:
        ValueError: the ground truth is not a number; the data is wrong, not the response.
    """
    gold = parse_number(truth)
    if gold is None:
        raise ValueError(f"ground truth {truth!r} is not a number; prepare the data again")
    answers = final_answers(response)
    if not answers:
        return Verdict(Reason.NO_ANSWER)
    if len(answers) > 1:
        return Verdict(Reason.AMBIGUOUS)
    (answer,) = answers
    if answer is None:
        return Verdict(Reason.NO_ANSWER)
    return Verdict(Reason.CORRECT if answer == gold else Reason.WRONG, shortest(answer))


def final_answers(response: str) -> set[Decimal | None]:
    """Finds the different answers of the final statement; None stands for one that cannot be read."""
    text = conclusion(response)
    tails = [Marked(mark.start(), _CALCULATION.sub("", mark["tail"])) for mark in _MARKED.finditer(text)]
    tails = [tail for tail in tails if _DIGIT.search(tail.text) and not _HEADING.match(tail.text)]
    return {parse_number(tail.text) for tail in final_statement(text, tails)}


def parse_number(line: str) -> Decimal | None:
    """Reads the one number of a line exactly, None if it cannot be read (rules 2 to 4)."""
    *sides, text = line.split("=")
    if any(_LISTED.search(side) for side in sides[1:]):
        return None
    match = _NUMBER.search(text)
    if match is None:
        return None
    digits, before, after = match[0], text[max(0, match.start() - _BEFORE) : match.start()], text[match.end() :]
    if _SECOND.search(after) or _OPERATION.match(after) or _SCALED.match(after):
        return None
    if sum(map(str.isdigit, digits)) > MAX_DIGITS or not _WELL_GROUPED.fullmatch(digits):
        return None
    minus = None if _DASH_OF_A_SENTENCE.search(before) else _MINUS.search(before)
    if minus:
        before = before[: minus.start()]
    if _APPLIED.search(before) or (minus and _MINUS.search(before)):
        return None
    return Decimal(("-" if minus else "") + digits.replace(",", ""))


def shortest(number: Decimal) -> str:
    """Writes a number without needless zeros, so that equal answers vote alike."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
