"""The paper's table: for each context size the models below one another, data sets across, in percent."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from recipe.spo.plots.results import Cell, ResultError

CSV_COLUMNS = (
    "model",
    "data",
    "context",
    "mean",
    "standard_error",
    "n",
    "temperature",
    "top_p",
    "grader",
    "questions",
    "unfinished",
    "mean_length",
    "published",
    "source",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table in words.

    Attributes:
        cells: context, model, and a number or `-` for each data set.
        published: the numbers are published, not ours.
    """

    cells: list[str]
    published: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """A table in words.

    Attributes:
        header: what stands above the columns.
        sections: for each context size its rows.
        notes: footnotes.
    """

    header: list[str]
    sections: list[list[Row]]
    notes: list[str]


def lay_out(cells: Sequence[Cell]) -> Grid:
    """Lay cells out: contexts ascending; models and data sets in the order given.

    Args:
        cells: results, ours and published ones.

    Returns:
        The table, with `-` where there is no result; a model without any at a context has no row there.

    Raises:
        ResultError: two results for one cell; the message names both files.
    """
    by_place: dict[tuple[str, str, int], Cell] = {}
    for cell in cells:
        place = (cell.model, cell.data, cell.context)
        if place in by_place:
            raise ResultError(
                f"two results for {cell.model}, {cell.data}, context {cell.context}: "
                f"{by_place[place].source} and {cell.source}; tell them apart with LABEL=FILE"
            )
        by_place[place] = cell
    counts = questions(cells)
    protocols = list(dict.fromkeys(protocol(cell, counts) for cell in cells))

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "-"
        # With one protocol the note needs no number.
        mark = f" [{protocols.index(protocol(cell, counts)) + 1}]" if len(protocols) > 1 else ""
        return accuracy(cell) + mark

    data = list(counts)
    sections = []
    for context in sorted({cell.context for cell in cells}):
        here = [cell for cell in cells if cell.context == context]
        sections.append(
            [
                Row([tokens(context), model, *(text(by_place.get((model, name, context))) for name in data)], published)
                for model, published in dict.fromkeys((cell.model, cell.published) for cell in here)
            ]
        )
    return Grid(["context", "model", *data], sections, _notes(cells, protocols))


def _notes(cells: Sequence[Cell], protocols: Sequence[str]) -> list[str]:
    errors = " ± one standard error" if any(cell.standard_error is not None for cell in cells) else ""
    notes = [f"Accuracy in percent{errors}; a context counts tokens of prompt and response together."]
    if len(protocols) == 1:
        notes.append(f"{protocols[0]}.")
    else:
        notes += [f"[{number}] {words}." for number, words in enumerate(protocols, 1)]
    sizes = [f"{data} {' or '.join(map(str, counts))}" for data, counts in questions(cells).items()]
    notes.append(f"Questions: {', '.join(sizes)}.")
    sources = dict.fromkeys(cell.source for cell in cells if cell.published)
    notes += [f"(published): the numbers of {source}; not measured by us." for source in sources]
    return notes


def questions(cells: Sequence[Cell]) -> dict[str, list[int]]:
    """How many questions the results of each data set are over; more than one number: not comparable as they are."""
    return {
        data: sorted({cell.questions for cell in cells if cell.data == data})
        for data in dict.fromkeys(cell.data for cell in cells)
    }


def protocol(cell: Cell, counts: Mapping[str, Sequence[int]]) -> str:
    """How a number was measured, in words.

    Args:
        cell: the number.
        counts: `questions` of the table; a data set that was cut differently has its size said here.

    Returns:
        A footnote.
    """
    samples = "1 sample a question" if cell.n == 1 else f"mean of {cell.n} samples a question"
    words = f"{samples}, temperature {cell.temperature:g}, top-p {cell.top_p:g}"
    if len(counts[cell.data]) > 1:
        words = f"{cell.questions} questions of {cell.data}, {words}"
    return f"{words}, grader {cell.grader}" if cell.grader else words


def accuracy(cell: Cell) -> str:
    """`56.6 ± 1.2`, or `56.6` where no standard error is known."""
    mean = f"{100 * cell.mean:.1f}"
    return mean if cell.standard_error is None else f"{mean} ± {100 * cell.standard_error:.1f}"


def tokens(context: int) -> str:
    """2048 as `2K`, 2047 as `2047`."""
    return f"{context // 1024}K" if context % 1024 == 0 else str(context)


def markdown(grid: Grid) -> str:
    """The table as Markdown."""
    rows = [row.cells for section in grid.sections for row in section]
    lines = [grid.header, ["---:", "---", *["---:"] * (len(grid.header) - 2)], *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    return table + "\n\n" + "\n".join(f"* {note}" for note in grid.notes) + "\n"


def terminal(grid: Grid) -> Table:
    """The table for rich's console; print the notes below it."""
    table = Table()
    for name in grid.header:
        table.add_column(Text(name), justify="left" if name == "model" else "right", overflow="fold")
    for section in grid.sections:
        for row in section:
            table.add_row(*map(Text, row.cells), style="dim" if row.published else None)
        table.add_section()
    return table


def write_csv(cells: Sequence[Cell], path: Path) -> None:
    """Write one line a result, numbers as fractions, with how and whence they are.

    Args:
        cells: results, ours and published ones.
        path: file to write.
    """
    with open(path, "w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for cell in cells:
            values = {name: getattr(cell, name) for name in CSV_COLUMNS} | {
                "published": "yes" if cell.published else "no"
            }
            writer.writerow(values.values())
