"""Questions on the terminal: a list of them, and one as a tree in colour."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from rich.style import Style
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from recipe.spo.viewer.questions import CONTINUATION, PROMPT, SEGMENT, UNCUT, Question, Shown

#: Most characters of a segment on its line.
WIDTH = 90
#: Unicode categories that do something to a terminal or to its lines, or that have no sign.
UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def listing(questions: Sequence[Question]) -> Table:
    """What there is to choose from: a line a question, readable from 80 columns on."""
    table = Table(box=None, pad_edge=False)
    # A narrow terminal takes from the prompt alone, which may wrap as a column, though no cell of it does.
    for name, most in (("step", None), ("question", 20), ("uid", None), ("method", 12), ("V(prompt)", None)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=most)
    table.add_column("nodes", no_wrap=True)
    table.add_column("prompt", overflow="ellipsis", min_width=len("prompt"))
    for question in questions:
        cells = (
            str(question.step),
            question.index,
            question.uid[:8],
            question.method,
            _number(question.nodes[0].value),
            str(len(question.nodes) - 1),
            question.prompt[:WIDTH],
        )
        # As `Text`, or rich would read the brackets and colons of a string as its markup.
        table.add_row(*(Text(printable(cell), no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


def outline(question: Question) -> Tree:
    """A question's tree: advantage, value, text, and how responses end. Trained tokens are bold, masked ones dim.

    The segments of a chain's response stand one below the other, and its continuations are counted only.
    """
    largest = max((abs(node.advantage) for node in question.nodes if node.advantage), default=1.0)
    continued = Counter(node.parent for node in question.nodes if node.kind == CONTINUATION)
    branches: dict[int, Tree] = {}
    for index, node in enumerate(question.nodes):
        if node.kind == CONTINUATION:
            continue
        shown = line(node, largest)
        if continued[index]:
            shown.append(f"  ({continued[index]} continuations)", "dim")
        if node.parent is None:
            branches[index] = Tree(shown, guide_style="dim")
        else:
            branches[index] = branches[0 if question.method == "chain" else node.parent].add(shown)
    return branches[0]


def legend(question: Question) -> Text:
    """What the signs of `outline` mean."""
    mask = "no mask" if question.threshold is None else f"mask p < {question.threshold:g}"
    shown = Text(f"advantage, value after the segment, text ({mask}): ")
    for text, style in (("trained", "bold underline"), ("no row", "none"), ("masked", "dim")):
        shown.append(text, style)
        shown.append("  ")
    return shown


def line(node: Shown, largest: float) -> Text:
    """A node on one line.

    Args:
        node: to be shown.
        largest: advantage that has the full colour.
    """
    shown = Text(no_wrap=True, overflow="ellipsis")
    if node.kind != PROMPT:
        shown.append(
            f"{'':7}" if node.advantage is None else f"{node.advantage:+7.3f}", _style(node.advantage, largest)
        )
        shown.append(" ")
    shown.append(f"V {_number(node.value)}", "green")
    shown.append("  ")
    if node.kind == UNCUT:
        shown.append("before the first cut: ", "italic dim")
    if node.kind != PROMPT and node.reward is not None:
        shown.append(printable(f"[{node.verdict or ('finished' if node.finished else 'unfinished')} {node.reward:g}] "))
    shown.append_text(_tokens(node))
    return shown


def printable(text: str) -> str:
    """Text of a model that can do nothing to a terminal: no control or direction signs, no line
    separators, no half characters."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "↵", "\r": "␍", "\t": "⇥"}[character]
    return "\ufffd" if unicodedata.category(character) in UNPRINTABLE else character


def _tokens(node: Shown) -> Text:
    shown, left = Text(), WIDTH
    for position, text in enumerate(node.tokens.texts):
        if left <= 0:
            shown.append("…", "dim")
            break
        text = printable(text)[:left]
        left -= len(text)
        shown.append(text, _token_style(node, position))
    return shown


def _token_style(node: Shown, position: int) -> str:
    if node.tokens.mask is None:
        return "none" if node.kind in (PROMPT, SEGMENT) else "italic"
    if not node.tokens.mask[position]:
        return "dim"
    return "bold underline" if node.row else "none"


def _style(advantage: float | None, largest: float) -> Style:
    """Blue for good, orange for bad; stronger the larger. Also readable without colour, by the sign."""
    if not advantage:
        return Style(dim=True)
    strength = 0.35 + 0.65 * min(1.0, abs(advantage) / largest)
    red, green, blue = (63, 134, 221) if advantage > 0 else (221, 105, 48)
    return Style(color=f"rgb({int(red * strength)},{int(green * strength)},{int(blue * strength)})", bold=True)


def _number(value: float | None) -> str:
    return "  –  " if value is None else f"{value:.3f}"
