"""Where a response marks its answers: the part that all graders share.

Everything here is linear in the length of the response, without recursion, and raises for no text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

#: Characters of a response that are looked at, from its end; a response of 32,768 tokens has fewer.
MAX_RESPONSE = 400_000
#: Characters of an answer; a longer one is no answer that anyone could use.
MAX_ANSWER = 1000

_THINK_OPENS, _THINK_CLOSES = "<think>", "</think>"
_BLANK_LINE = re.compile(r"\n[ \t\r\f\v]*\n")
_BOX = r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t\n]*"
_TOKEN = re.compile(rf"(?P<box>{_BOX})|\\.|[{{}}]", re.DOTALL)
_BARE = re.compile(r"-?(?:\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z]))")


@dataclass(frozen=True, slots=True)
class Marked:
    """An answer that a response marks.

    Attributes:
        start: where in the text the mark begins.
        text: the answer; None if it cannot be read: its box never closes, or it is too long.
    """

    start: int
    text: str | None


def conclusion(response: str) -> str:
    """Cuts a response to the part that is graded: without thoughts, its last `MAX_RESPONSE` characters.

    What follows the last `</think>` is graded, and of that what stands before a thought that never ends.
    """
    _, _, said = response.rpartition(_THINK_CLOSES)
    return said.partition(_THINK_OPENS)[0][-MAX_RESPONSE:]


def boxes(text: str) -> list[Marked]:
    r"""Finds what stands in `\boxed{...}`, `\fbox{...}` and `\boxed 2`; of nested boxes the outermost.

    Braces balance, escaped ones (`\{`) do not count. A box with nothing in it marks no answer: it is
    how one speaks of boxes. One that never closes, or holds too much, marks one that cannot be read.
    """
    found: list[Marked] = []
    opened: list[tuple[int, int] | None] = []  # per open brace: where its box and its content begin
    waiting = -1  # a box's start, if its brace must come next
    content = -1
    for token in _TOKEN.finditer(text):
        if waiting >= 0 and token.start() != content:
            found.append(Marked(waiting, _bare(text, content)))
            waiting = -1
        if token["box"]:
            waiting, content = token.start(), token.end()
        elif token[0] == "{":
            opened.append((waiting, token.end()) if waiting >= 0 else None)
            waiting = -1
        elif token[0] == "}":
            waiting = -1
            if opened and (box := opened.pop()):
                start, begin = box
                while found and found[-1].start > start:
                    found.pop()  # nested in this one
                found.append(Marked(start, _usable(text[begin : min(token.start(), begin + MAX_ANSWER + 1)])))
        else:
            waiting = -1
    if waiting >= 0:
        found.append(Marked(waiting, _bare(text, content)))
    found.extend(Marked(box[0], None) for box in opened if box)
    return sorted((marked for marked in found if marked.text != ""), key=lambda marked: marked.start)


def final_statement(text: str, marked: Sequence[Marked]) -> list[Marked]:
    """Keeps the marked answers of the last paragraph that has one (see `verdict`).

    Args:
        text: what is graded.
        marked: its marked answers, in order.

    Returns:
        Those that begin in the same paragraph as the last one; none if there are none.
    """
    if not marked:
        return []
    breaks = [blank.end() for blank in _BLANK_LINE.finditer(text)]
    paragraph = bisect_right(breaks, marked[-1].start)
    begin = breaks[paragraph - 1] if paragraph else 0
    return [answer for answer in marked if answer.start >= begin]


def unboxed(answer: str) -> str:
    """Takes boxes within an answer off, leaving what they hold."""
    return re.sub(_BOX, "", answer) if "box" in answer else answer


def _usable(content: str) -> str | None:
    return content.strip() if len(content) <= MAX_ANSWER else None


def _bare(text: str, begin: int) -> str:
    r"""`\boxed 2`: TeX would take one character; a whole number is meant."""
    match = _BARE.match(text, begin, begin + MAX_ANSWER)
    return match[0] if match else ""
