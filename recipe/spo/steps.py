r"""Where the reasoning steps of a response begin, as character offsets into its text.

Every rule returns offsets that increase strictly from 0, each smaller than the length of the text
(`[0]` for the empty text). White space between two steps belongs to the step before. Any text is
accepted, none raises; the cost is linear in its length.

These are the partitions of VinePPO, with which the paper compares; the rules are our own. VinePPO
also breaks parts of more than 100 characters at commas, "and" or "=", and cuts within formulas at
line ends; we never cut within a formula. It cuts before the white space, we after it: a token such
as " Then" must therefore be placed by its first visible character, see
`recipe.spo.partition.visible_starts`.

What `sentence_steps` does where the text leaves a choice:

* LaTeX that is not closed, as in a truncated response: `$`, `$$`, `\(` and `{` must close before the
  next blank line, as TeX wants it, or else they are ordinary characters; `\[` and `\begin{x}` may
  close anywhere, or else protect what follows up to the next blank line; `[asy]` without `[/asy]`
  is a figure up to the end.
* `$5 and $6` is money: `$` and a digit do not pair with a `$` that looks like an opening one, with
  white space before and none after.
* A full stop or question mark at the end of a formula ends the sentence (`so $x = 3.$ Next`); a `!`
  there is a factorial.
* After a display formula without a full stop a sentence begins if the next line does not go on in
  lower case or with punctuation, or if the text goes on with a capital letter.
* `1.`, `b.`, `Step 2.` at the beginning of a line are headings, part of what follows. One capital
  letter and a full stop otherwise end a sentence: in mathematics a point or an option more often
  than an initial.
* A piece without letter or digit (a rule `---`, a stray `**`) is no step, it joins the one before.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

# A heading "#### Step 1" or "#### 2. Next" is not an answer.
_ANSWER_LINE = re.compile(r"[^\S\n]*####(?!#|[\s*_]*(?:[^\W\d_]|\d+[.)]\s))")


def line_steps(text: str) -> list[int]:
    """A step is a line: GSM8K's solutions.

    Lines of white space belong to the step before, at the beginning to the first step. The line
    `#### answer`, and whatever follows it, belongs to the last step before it.
    """
    steps: list[int] = []
    begin = 0
    for line in text.split("\n"):
        if _ANSWER_LINE.match(line):
            break
        if line and not line.isspace():
            steps.append(begin)
        begin += len(line) + 1
    return [0, *steps[1:]]


def sentence_steps(text: str) -> list[int]:
    r"""A step is a sentence, and formulas are never cut: MATH's solutions.

    A sentence ends at a full stop, question or exclamation mark (and the closing quotes or brackets
    after it) before white space and something that can begin a sentence, at a blank line, and after
    a display formula (see the module's docstring). Never within `$..$`, `$$..$$`, `\(..\)`,
    `\[..\]`, `\begin{x}..\end{x}`, `[asy]..[/asy]` or braces, nor after a common abbreviation.
    """
    shadow = _shadow(text)
    cuts = [gap.end() for gap in _GAP.finditer(shadow) if _is_boundary(shadow, gap.start(), gap.end())]
    pieces = pairwise([0, *cuts, len(text)])
    steps = [begin for begin, end in pieces if any(map(str.isalnum, text[begin:end]))]
    return [0, *steps[1:]]


#: The rules by the name that the configuration uses.
STEP_RULES: dict[str, Callable[[str], list[int]]] = {"lines": line_steps, "sentences": sentence_steps}


# --- LaTeX: what must not be cut -----------------------------------------------------------------

_LATEX = re.compile(
    r"""\\(?P<side>begin|end)\{(?P<name>[^{}\n]*)\}
      | (?P<text>\\(?:text[a-z]*|[mhf]box)\{)       # text within a formula may hold a formula
      | \\.                                         # \[ \] \( \), and escapes: \$ \{ \\
      | \$\$? | [{}] | \[/?asy\]
      | (?P<blank>\n[^\S\n]*\n)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_OPENS = {r"\[": "[", r"\(": "(", "{": "{", "[asy]": "asy"}
_CLOSES = {r"\]": "[", r"\)": "(", "}": "{", "[/asy]": "asy"}
_MONEY, _MONEY_AGAIN = re.compile(r"\$\d"), re.compile(r"\s\$[^\s.,;:?!)]")
_WEAK = {"$", "$$", "(", "{", "text"}


class _Latex:
    """Reads a text once and collects what must not be cut: `spans` of (begin, end, is display).

    The stack holds what is open. A weak construct (inline formula, braces, `$$`) ends at a blank
    line at the latest and closes only within the innermost strong one (`\\[`, environment, asy).
    `places[kind]` are the heights of the stack at which that kind is open, so that no search is needed.
    """

    def __init__(self, text: str):
        self.text = text
        self.stack: list[tuple[str, int]] = []
        self.places: dict[str, list[int]] = defaultdict(list)
        self.strong: list[int] = []
        self.spans: list[tuple[int, int, bool]] = []
        for token in _LATEX.finditer(text):
            self._read(token)
        self._protect_unclosed()

    def _read(self, token: re.Match[str]) -> None:
        sign = token[0]
        if token["blank"]:
            self._drop(self._floor() + 1)
        elif token["side"]:
            kind = "begin " + token["name"]
            self._open(kind, token.start()) if token["side"] == "begin" else self._close(kind, token.end())
        elif token["text"]:
            self._open("text", token.start())
        elif sign in _OPENS:
            self._open(_OPENS[sign], token.start())
        elif sign == "}":
            self._close("text" if self._height("text") > self._height("{") else "{", token.end())
        elif sign in _CLOSES:
            self._close(_CLOSES[sign], token.end())
        elif sign == "$$" and self._height("$") > max(self._height("$$"), self._height("text")):
            self._dollar("$", token.start())  # the end of one inline formula and the beginning of the next
            self._dollar("$", token.start() + 1)
        elif sign[0] == "$":
            self._dollar(sign, token.start())

    def _dollar(self, kind: str, at: int) -> None:
        height = self._height(kind)
        if height > self._height("text"):
            if not _MONEY.match(self.text, self.stack[height][1]) or not _MONEY_AGAIN.match(self.text, at - 1):
                self._close(kind, at + len(kind))
                return
            self._drop(height)  # it was money
        self._open(kind, at)

    def _floor(self) -> int:
        return self.strong[-1] if self.strong else -1

    def _height(self, kind: str) -> int:
        """Where on the stack the innermost open construct of a kind is that may close now, or -1."""
        places = self.places[kind]
        return places[-1] if places and (kind not in _WEAK or places[-1] > self._floor()) else -1

    def _open(self, kind: str, at: int) -> None:
        if kind not in _WEAK:
            self.strong.append(len(self.stack))
        self.places[kind].append(len(self.stack))
        self.stack.append((kind, at))

    def _close(self, kind: str, end: int) -> None:
        height = self._height(kind)
        if height < 0:
            return
        begin = self.stack[height][1]
        self._drop(height)
        self.spans.append((begin, end, kind == "$$" or kind not in _WEAK))

    def _protect_unclosed(self) -> None:
        done = 0
        for kind, begin in (self.stack[height] for height in self.strong):
            if begin >= done:
                blank = None if kind == "asy" else _BLANK_LINE.search(self.text, begin)
                done = blank.start() if blank else len(self.text)
                self.spans.append((begin, done, True))
        merged: list[tuple[int, int, bool]] = []
        for begin, end, display in sorted(self.spans):
            if not merged or begin >= merged[-1][1]:
                merged.append((begin, end, display))
            elif end > merged[-1][1]:  # not closed, and overlaps what comes after
                merged[-1] = (merged[-1][0], end, True)
        self.spans = merged

    def _drop(self, height: int) -> None:
        while len(self.stack) > height:
            kind, _ = self.stack.pop()
            self.places[kind].pop()
            if kind not in _WEAK:
                self.strong.pop()


# Characters of private use that stand for a construct in the shadow of a text: all but the last
# character of it, and the last one of an inline or display construct, without or with a full stop.
_FILL, _INLINE, _INLINE_STOP, _DISPLAY, _DISPLAY_STOP = map(chr, range(0xE000, 0xE005))

# A full stop or question mark with only closing signs after it; not \right. nor the last of three dots.
_ENDS_WITH_STOP = re.compile(
    r"""(?<!\\right)(?<![.\\])[.?]
        (?:[\s}$)"'*] | \\[\]),;\ ] | \\right\W | \\(?:end|tag\*?)\{[^{}]*\} | \\q?quad\b)*\Z""",
    re.VERBOSE,
)


def _shadow(text: str) -> str:
    """The text with every protected construct blanked out, of the same length."""
    parts, done = [], 0
    for begin, end, display in _Latex(text).spans:
        stop = _ENDS_WITH_STOP.search(text, begin, end)
        last = (_DISPLAY_STOP if stop else _DISPLAY) if display else (_INLINE_STOP if stop else _INLINE)
        parts += [text[done:begin], _FILL * (end - begin - 1), last]
        done = end
    return "".join([*parts, text[done:]])


# --- Sentences, in the shadow --------------------------------------------------------------------

# Where a sentence may end: before white space, and directly after a display formula.
_GAP = re.compile(rf"\s+|(?<=[{_DISPLAY}{_DISPLAY_STOP}])(?!\s)")
_CLOSING = "\"'”’»)]}*_`"
_BEGINNING = "\"'“‘«([{\\$#*_-–—•>`" + _FILL
_HEADING = re.compile(r"\n[\s#>*_(]*(?:(?:step|case|part)\s+)?(?:\d{1,3}|[a-z]|[ivx]+)\.\Z", re.IGNORECASE)
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:e\.g|i\.e|cf|vs|viz|resp|approx|w\.r\.t|a\.k\.a|Mrs?|Ms|Dr|Prof|(?:[A-Z]\.)+[A-Z])\.\Z"
)
_ABBREVIATION_BEFORE_NUMBER = re.compile(
    r"(?<!\w)(?:figs?|eqs?|eqns?|nos?|pp?|sec|ch|vol|thm|lem|prop|cor|def|ex)\.\Z", re.IGNORECASE
)


def _is_boundary(shadow: str, before: int, after: int) -> bool:
    """Whether a sentence ends at `before` and, white space between, the next begins at `after`."""
    if before == 0 or after == len(shadow):
        return False
    gap, next_ = shadow[before:after], shadow[after]
    if _BLANK_LINE.search(gap):
        return True
    if not (next_ in _BEGINNING or (next_.isalnum() and not next_.islower())):
        return False
    end = before
    while end and shadow[end - 1] in _CLOSING:
        end -= 1
    mark = shadow[end - 1 : end]
    if mark == _DISPLAY:
        return "\n" in gap or next_.isupper()
    if mark == _INLINE_STOP or mark == _DISPLAY_STOP:
        return True
    if not mark or mark not in ".!?":
        return False
    head = shadow[max(end - 24, 0) : end] if end > 24 else "\n" + shadow[:end]
    if head.endswith(".."):
        return next_.isalpha()  # "1, 2, ... 9" goes on, "Hmm... Wait" does not
    if _HEADING.search(head) or _ABBREVIATION.search(head):
        return False
    return not (_ABBREVIATION_BEFORE_NUMBER.search(head) and (next_.isdigit() or next_ in "(" + _FILL))
