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
    """All tables of a result."""
    pairs, methods = result["truth"]["sibling_pairs"], result["methods"]
    found = [_open(result["open"]), _values(methods), _advantages(methods, pairs), _bias(methods)]
    found += [_families(result["families"]), _families_minus_group(result["families"])]
    found += [_methods_minus_group(methods), _rules(methods)]
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


def number(found: Number, digits: int = 3, sign: str = "") -> str:
    """A number with its interval, `0.123 [0.100, 0.150]`; `-` where there is none.

    Args:
        found: the number.
        digits: behind the point.
        sign: "+" shows that of positive numbers.
    """
    if found is None:
        return "-"
    value, low, high = (
        None if found[name] is None else f"{found[name]:{sign}.{digits}f}" for name in ("value", "low", "high")
    )
    if low is None:
        return value or "-"
    if value is None:
        return f"above {low}"
    return f"{value} [{low}, {high or 'no end'}]"


def _open(positions: Sequence[Mapping[str, Any]]) -> Grid:
    header = ["after tokens", "responses going on", "open variance of the reward", "share of the prompt's"]
    rows = [
        [
            f"{row['after_tokens']:,}",
            number(row["going_on"], 2),
            number(row["open"]),
            number(row["open_share"], 2),
        ]
        for row in positions
    ]
    return Grid("What is still open, by position: where a cut can tell something", header, rows)


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


def _advantages(methods: Sequence[Mapping[str, Any]], pairs: int) -> Grid:
    header = ["method", "tokens a question", "MSE, segments", "correlation, segments", "MSE, tokens"]
    header += ["correlation, tokens", f"siblings ranked right, of {pairs} pairs"]
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


#: Of differences: key, heading, digits.
_SHARED = (
    ("value_mse", "MSE of value, all states", 3),
    ("token_advantage_mse", "MSE of advantage, tokens", 3),
    ("token_advantage_correlation", "correlation, tokens", 2),
    ("sibling_rank_accuracy", "siblings ranked right", 2),
)
_SAME_ROLLOUTS = (
    ("value_mse", "MSE of value, all states", 3),
    ("own_value_mse", "own states", 3),
    ("segment_advantage_correlation", "correlation, segments", 2),
    ("token_advantage_mse", "MSE of advantage, tokens", 3),
    ("token_advantage_correlation", "correlation, tokens", 2),
)


def _differences(row: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    return [number(row.get(name), digits, "+") for name, _, digits in columns]


def _families_minus_group(families: Mapping[str, Any]) -> Grid:
    rows = [
        [row["family"], *_differences(row["minus_group"], _SHARED)] for row in families["rows"] if row["minus_group"]
    ]
    title = f"Minus the group mean, both at {families['tokens']:,.0f} tokens a question, paired by question"
    return Grid(title, ["family", *(heading for _, heading, _ in _SHARED)], rows)


def _methods_minus_group(methods: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [row["method"], f"{row['tokens']:,.0f}", *_differences(row["minus_group"], _SHARED)]
        for row in methods
        if any(row["minus_group"].values())
    ]
    title = "Minus the group mean at the method's own tokens, paired by question"
    return Grid(title, ["method", "tokens a question", *(heading for _, heading, _ in _SHARED)], rows)


def _rules(methods: Sequence[Mapping[str, Any]]) -> Grid:
    rows = [
        [row["method"], *_differences(row["minus_rival"], _SAME_ROLLOUTS)]
        for row in methods
        if any(row["minus_rival"].values())
    ]
    title = "Other rules minus the mean rule on the same rollouts, paired by question"
    return Grid(title, ["method", *(heading for _, heading, _ in _SAME_ROLLOUTS)], rows)


def _gradients(gradients: Mapping[str, Any]) -> Grid:
    header = ["method", "trains", "tokens a question", "variance, a trained token", "noise / signal"]
    header += ["two updates agree", "cosine to the measured truth", "cosine to the truth", "of the mean"]
    columns = (("step_variance", 1), ("noise_to_signal", 2), ("agreement", 2), ("measured_cosine", 2))
    columns += (("cosine", 2), ("direction", 2))
    rows = [
        [row["method"], row["trains"], f"{row['tokens']:,.0f}", *(number(row[name], n) for name, n in columns)]
        for row in gradients["rows"]
    ]
    title = f"Policy gradient from {gradients['tokens']:,.0f} generated tokens, against ground-truth advantages"
    return Grid(title, header, rows)
