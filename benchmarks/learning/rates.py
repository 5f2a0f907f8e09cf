"""The learning rate of each method: the one of a small grid with the largest area under its curve.

One seed, which no other run has, a third of the budget, on the harder variant: the same for every method. One run a
rate cannot tell close rates apart, so those within `NEAR` of the best are named, and so is a best rate at the end of
the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.learning.errors import LearningError
from benchmarks.learning.plan import DEMO_RATE, TUNE, TUNE_SEED, TUNE_VARIANT, Method
from benchmarks.learning.results import gather
from recipe.spo.json_files import JsonError, read_json, write_json

RATES = "rates.json"
#: Areas that are nearer to one another than this are not told apart.
NEAR = 0.02
DEMO = "demo"


def choose(areas: Mapping[float, float]) -> dict[str, Any]:
    """Choose among learning rates.

    Args:
        areas: rate -> area under its curve.

    Returns:
        The rate (of equal ones the smallest), the areas, near ties, and whether it is at an end of the grid.
    """
    rates = sorted(areas)
    best = max(rates, key=lambda rate: areas[rate])
    return {
        "rate": best,
        "area": {f"{rate:g}": round(areas[rate], 6) for rate in rates},
        "near_ties": [rate for rate in rates if rate != best and areas[best] - areas[rate] < NEAR],
        "at_end_of_grid": len(rates) > 1 and best in (rates[0], rates[-1]),
    }


def write_rates(
    out: Path, methods: Sequence[Method], areas: Mapping[str, Mapping[float, float]], grid: Sequence[float], **how: Any
) -> dict[str, Any]:
    """Add the choices of the methods whose whole grid is done to `rates.json`; those of others stay as they are.

    Args:
        out: folder of the bench.
        methods: that were tuned.
        areas: label -> rate -> area, of finished runs.
        grid: rates that each method has tried.
        how: what else the file says of each choice.

    Returns:
        What the file holds now.

    Raises:
        LearningError: it cannot be read or written.
    """
    content = read_rates(out / RATES) if (out / RATES).exists() else {}
    for method in methods:
        done = areas.get(method.label, {})
        if method.rate is None and set(grid) <= done.keys():
            content[method.label] = {
                **_identity(method),
                **choose({rate: done[rate] for rate in grid}),
                **how,
            }
    try:
        write_json(out / RATES, content)
    except OSError as error:
        raise LearningError(f"{out / RATES} cannot be written: {error.strerror or error}") from None
    return content


def tune_rates(out: Path, methods: Sequence[Method], grid: Sequence[float], budget: int, console: Console) -> None:
    """Choose learning rates from the tuning runs that are finished, and say which.

    Args:
        out: folder of the bench.
        methods: that were tuned.
        grid: rates that each method has tried.
        budget: generated tokens of a tuning run.
        console: where the choices are shown.

    Raises:
        LearningError, EvaluationError: runs or rates cannot be read, or were made with another budget.
    """
    areas: dict[str, dict[float, float]] = {}
    for result in gather(out, TUNE)[0]:
        areas.setdefault(result.settings["label"], {})[float(result.settings["learning_rate"])] = result.area
    content = write_rates(out, methods, areas, grid, token_budget=budget, seed=TUNE_SEED, variant=TUNE_VARIANT)
    console.print(f"\n[bold]Learning rates[/bold] ({out / RATES})")
    for method in methods:
        if method.label in content:
            entry = content[method.label]
            near = f"; {', '.join(f'{rate:g}' for rate in entry['near_ties'])} as good" if entry["near_ties"] else ""
            edge = "; at the end of the grid" if entry["at_end_of_grid"] else ""
            console.print(f"  {method.label}: {entry['rate']:g}{near}{edge}")


def _identity(method: Method) -> dict[str, Any]:
    return {"method": method.base, "overrides": list(method.overrides)}


def read_rates(path: Path) -> dict[str, Any]:
    """Read `rates.json`.

    Raises:
        LearningError: it is not there, or not such a file.
    """
    try:
        content = read_json(path)
    except (JsonError, OSError) as error:
        raise LearningError(str(error)) from None
    if content is None:
        raise LearningError(f"{path} does not exist: run the phase tune first (--only tune), or give --rates {DEMO}")
    if not isinstance(content, dict):
        raise LearningError(f"{path} is not a file of learning rates: restore or delete it")
    for label, entry in content.items():
        rate = entry.get("rate") if isinstance(entry, dict) else None
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise LearningError(f"{path}: {label}.rate is {rate!r} and not a number above 0: mend it, or tune again")
    return content


def rates_of(methods: Sequence[Method], source: str, out: Path) -> tuple[dict[str, float], list[str]]:
    """The learning rate of each method.

    Args:
        methods: that are to run.
        source: a file, or `DEMO` for the demo's rate.
        out: folder of the bench, for messages.

    Returns:
        label -> rate, and the labels of methods that have none.

    Raises:
        LearningError: the file cannot be used, or was tuned for a method of other settings.
    """
    rates = {method.label: method.rate for method in methods if method.rate is not None}
    if source == DEMO:
        return {method.label: DEMO_RATE for method in methods} | rates, []
    if len(rates) == len(methods):
        return rates, []
    content = read_rates(Path(source))
    for method in methods:
        entry = content.get(method.label)
        if method.rate is not None or entry is None:
            continue
        tuned_for = {name: entry.get(name, value) for name, value in _identity(method).items()}
        if tuned_for != _identity(method):
            raise LearningError(
                f"{source}: {method.label} was tuned as {tuned_for['method']} {' '.join(tuned_for['overrides'])}, now "
                f"it is {method.base} {' '.join(method.overrides)}: choose another label, or delete its entry and its "
                f"runs in {out} and tune again"
            )
        rates[method.label] = float(entry["rate"])
    return rates, [method.label for method in methods if method.label not in rates]
