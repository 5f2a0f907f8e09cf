"""What the runs come to: a row a method, and what can be said of them in words."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.learning.numbers import Mean, mean_of, paired, t_quantile
from benchmarks.learning.plan import BASELINE
from benchmarks.learning.results import Result
from recipe.spo.plots.band import standard_error

#: The methods of which SPO's claim is; a variation has the base of the method that it varies.
SPO = ("tree", "chain")


@dataclass(frozen=True, slots=True)
class Row:
    """A method on a variant.

    Attributes:
        variant: of the task.
        label: the method.
        title: its name in tables.
        base: the method of the demo that it is or varies.
        rate: learning rate.
        seeds: of its runs.
        start: accuracy before training.
        final: accuracy at the budget.
        binomial: binomial standard error of one run's final accuracy.
        area: mean accuracy up to the budget.
        final_difference: paired with the baseline by seed; None for the baseline itself, or without common seeds.
        area_difference: likewise.
        seconds: of a run from start to exit, mean over seeds.
        cores: that its runs had, each number once.
        totals: as in `Result`, means over seeds.
    """

    variant: str
    label: str
    title: str
    base: str
    rate: float
    seeds: tuple[int, ...]
    start: float
    final: Mean
    binomial: float
    area: Mean
    final_difference: Mean | None
    area_difference: Mean | None
    seconds: float
    cores: tuple[int, ...]
    totals: Mapping[str, float]


def row_of(variant: str, runs: Mapping[int, Result], baseline: Mapping[int, Result]) -> Row:
    """Sum a method's seeds up.

    Args:
        variant: of the task.
        runs: seed -> run; at least one.
        baseline: the baseline's.
    """
    first = next(iter(runs.values()))
    is_baseline = first.settings["label"] == BASELINE
    finals, areas = ({seed: getattr(run, name) for seed, run in runs.items()} for name in ("final", "area"))
    final = mean_of(list(finals.values()))
    return Row(
        variant=variant,
        label=first.settings["label"],
        title=first.settings["title"],
        base=first.settings["method"],
        rate=float(first.settings["learning_rate"]),
        seeds=tuple(sorted(runs)),
        start=statistics.fmean(run.start for run in runs.values()),
        final=final,
        binomial=standard_error(final.mean, first.problems),
        area=mean_of(list(areas.values())),
        final_difference=None if is_baseline else paired(finals, {s: run.final for s, run in baseline.items()}),
        area_difference=None if is_baseline else paired(areas, {s: run.area for s, run in baseline.items()}),
        seconds=statistics.fmean(float(run.record["seconds"]) for run in runs.values()),
        cores=tuple(sorted({run.cores for run in runs.values()})),
        totals={name: statistics.fmean(run.totals[name] for run in runs.values()) for name in first.totals},
    )


def rows_of(variant: str, methods: Mapping[str, Mapping[int, Result]]) -> list[Row]:
    """A row a method, the highest area first."""
    rows = [row_of(variant, runs, methods.get(BASELINE, {})) for runs in methods.values()]
    return sorted(rows, key=lambda row: -row.area.mean)


HEADER = (
    "method",
    "learning rate",
    "seeds",
    "final accuracy",
    "area",
    "final - baseline",
    "area - baseline",
    "optimiser steps",
    "tokens trained",
    "seconds a run",
    "cores",
)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, accuracies in percent."""
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1))]
    for row in rows:
        final = (
            f"{_plus_minus(row.final)}"
            if row.final.n > 1
            else f"{100 * row.final.mean:.1f} (± {100 * row.binomial:.1f})"
        )
        lines.append(
            (
                row.title.replace("|", r"\|"),
                f"{row.rate:g}",
                ", ".join(map(str, row.seeds)),
                final,
                _plus_minus(row.area),
                _difference(row.final_difference),
                _difference(row.area_difference),
                f"{row.totals['optimizer_steps']:.0f}",
                f"{row.totals['trained_tokens']:,.0f}",
                f"{row.seconds:.0f}",
                ", ".join(map(str, row.cores)),
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _plus_minus(value: Mean) -> str:
    mean = f"{100 * value.mean:.1f}"
    return mean if value.error is None else f"{mean} ± {100 * value.error:.1f}"


def _difference(value: Mean | None) -> str:
    if value is None:
        return "-"
    mean = f"{100 * value.mean:+.1f}"
    if value.error is None:
        return mean
    low, high = (100 * edge for edge in value.interval)
    return f"{mean} ± {100 * value.error:.1f} [{low:+.1f}, {high:+.1f}]"


def write_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, accuracies as fractions; empty where there is no number."""
    out = io.StringIO()
    columns = [
        "variant",
        "method",
        "title",
        "learning_rate",
        "seeds",
        "start",
        "final",
        "final_se",
        "final_binomial_se",
    ]
    columns += ["area", "area_se"]
    for name in ("final", "area"):
        columns += [f"{name}_minus_baseline{suffix}" for suffix in ("", "_se", "_low", "_high", "_pairs")]
    columns += ["seconds", "cores"]
    columns += ["training_seconds", "steps", "optimizer_steps", "generated_tokens", "trained_tokens"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.variant, row.label, row.title, row.rate, _join(row.seeds), row.start]
        values += [row.final.mean, row.final.error, row.binomial, row.area.mean, row.area.error]
        for difference in (row.final_difference, row.area_difference):
            low, high = (difference.interval if difference else None) or (None, None)
            values += [difference.mean, difference.error, low, high, difference.n] if difference else [None] * 5
        values += [row.seconds, _join(row.cores), *(row.totals[name] for name in columns[-5:])]
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    return out.getvalue()


def _join(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def sentences(rows: Sequence[Row]) -> list[str]:
    """Does SPO beat the baseline by more than two standard errors? One sentence for each of its methods and measures.

    Variations of one seed have one sentence together: there is nothing to say of each.

    Args:
        rows: of one variant.
    """
    spoken = []
    single = [row for row in rows if row.base in SPO and row.label != row.base and len(row.seeds) == 1]
    for row in rows:
        if row.base not in SPO or row in single:
            continue
        for measure, difference in (("final accuracy", row.final_difference), ("area", row.area_difference)):
            spoken.append(_sentence(row, measure, difference))
    if single:
        names = ", ".join(row.title for row in single)
        spoken.append(f"{rows[0].variant}, of one seed each, which has no standard error and decides nothing: {names}.")
    return spoken


def _sentence(row: Row, measure: str, difference: Mean | None) -> str:
    subject = f"{row.variant}, {measure}: {row.title}"
    if difference is None:
        return f"{subject} cannot be compared with {BASELINE}: no seed that both have run."
    points = f"{100 * difference.mean:+.1f} points"
    if difference.error is None:
        return f"{subject} is {points} from {BASELINE}; one seed has no standard error, so this decides nothing."
    low, high = (100 * edge for edge in difference.interval)
    verdict = {
        1: f"**beats {BASELINE} by more than two standard errors**",
        0: f"**does not beat {BASELINE} by more than two standard errors**",
        -1: f"**does not beat {BASELINE}: it is behind by more than two standard errors**",
    }[difference.beyond_two_errors]
    within = "includes" if low <= 0 <= high else "excludes"
    wide = t_quantile(difference.n - 1)
    return (
        f"{subject} {verdict}: {points} ± {100 * difference.error:.1f} (paired, n = {difference.n}); the 95 % t "
        f"interval, {wide:.1f} standard errors to each side, is [{low:+.1f}, {high:+.1f}] and {within} 0."
    )
