"""The report's tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Number = Mapping[str, float | None] | None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table in words."""

    title: str
    header: list[str]
    rows: list[list[str]]


def grids(result: Mapping[str, Any]) -> list[Grid]:
    """All tables of a result: values, advantages, bias, families at one budget, gradients."""
    found = [_values(result["methods"]), _advantages(result["methods"])]
    found += [_bias(result["methods"]), _families(result["families"])]
    if "gradients" in result:
        found.append(_gradients(result["gradients"]))
    return found


def rich_table(grid: Grid) -> Any:
    """A table for rich."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(grid.title), show_edge=False, pad_edge=False)
    for place, heading in enumerate(grid.header):
        table.add_column(heading, justify="right" if place else "left", no_wrap=place == 0)
    for row in grid.rows:
        table.add_row(*map(escape, row))
    return table


def markdown(grid: Grid) -> str:
    """A table in Markdown, with its title above."""
    lines = [grid.header, ["---"] * len(grid.header), *grid.rows]
    return f"**{grid.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(found: Number, digits: int = 3) -> str:
    """A number with its interval, `0.123 [0.100, 0.150]`; `-` where there is none."""
    if found is None or found["value"] is None:
        return "-"
    text = f"{found['value']:.{digits}f}"
    if found["low"] is None:
        return text
    return f"{text} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _values(methods: Sequence[Mapping[str, Any]]) -> Grid:
    header = ["method", "tokens a question", "MSE, all states", "MSE, own states", "worth, continuations"]
    rows = [
        [
            row["method"],
            f"{row['tokens']:,.0f}",
            number(row["value_mse"]),
            number(row["own_value_mse"]),
            number(row["own_value_worth"], 1),
        ]
        for row in methods
        if row["value_mse"] is not None
    ]
    return Grid("Values", header, rows)


def _advantages(methods: Sequence[Mapping[str, Any]]) -> Grid:
    header = ["method", "tokens a question", "MSE, segments", "correlation, segments", "MSE, tokens"]
    header += ["correlation, tokens", "siblings ranked right"]
    rows = [
        [
            row["method"],
            f"{row['tokens']:,.0f}",
            number(row["segment_advantage_mse"]),
            number(row["segment_advantage_correlation"], 2),
            number(row["token_advantage_mse"]),
            number(row["token_advantage_correlation"], 2),
            number(row["sibling_rank_accuracy"], 2),
        ]
        for row in methods
    ]
    return Grid("Advantages", header, rows)


def _bias(methods: Sequence[Mapping[str, Any]]) -> Grid:
    places = sorted({part["from_token"] for row in methods for part in row["own_value_bias_by_position"]})
    header = ["method", "all", *(f"from token {place}" for place in places)]
    rows = []
    for row in methods:
        by_place = {part["from_token"]: part for part in row["own_value_bias_by_position"]}
        if by_place:
            cells = [number(by_place.get(place), 2) for place in places]
            rows.append([row["method"], number(row["own_value_bias"], 2), *cells])
    return Grid("Bias of values at own states, by position", header, rows)


def _families(families: Mapping[str, Any]) -> Grid:
    header = ["family", "MSE of value, all states", "own states", "MSE of advantage, tokens"]
    header += ["correlation, tokens", "siblings ranked right"]
    rows = [
        [
            row["family"],
            number(row["value_mse"]),
            number(row["own_value_mse"]),
            number(row["token_advantage_mse"]),
            number(row["token_advantage_correlation"], 2),
            number(row["sibling_rank_accuracy"], 2),
        ]
        for row in families["rows"]
    ]
    return Grid(f"At {families['tokens']:,.0f} generated tokens a question, between a family's sizes", header, rows)


def _gradients(gradients: Mapping[str, Any]) -> Grid:
    header = ["method", "trains", "tokens a question", "two updates agree", "cosine to the measured truth"]
    header += ["noise / signal", "cosine to the truth", "of the mean"]
    names = ("agreement", "measured_cosine", "noise_to_signal", "cosine", "direction")
    rows = [
        [row["method"], row["trains"], f"{row['tokens']:,.0f}", *(number(row[name], 2) for name in names)]
        for row in gradients["rows"]
    ]
    title = f"Policy gradient from {gradients['tokens']:,.0f} generated tokens, against ground-truth advantages"
    return Grid(title, header, rows)
