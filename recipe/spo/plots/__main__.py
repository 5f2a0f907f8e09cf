"""Pictures and tables from result files.

python -m recipe.spo.plots curves SPO-tree=a/metrics.jsonl SPO-tree=b/metrics.jsonl GRPO=c/metrics.jsonl --x all
python -m recipe.spo.plots table outputs/evaluation/*/*/result.json --published
python -m recipe.spo.plots table before=a/result.json after=b/result.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recipe.spo.plots.band import BandError, average
from recipe.spo.plots.draw import Panels, draw, save, write_points
from recipe.spo.plots.published import published
from recipe.spo.plots.results import ResultError, read_named
from recipe.spo.plots.runs import AXES, Axis, Run, group, load, pick_source, points
from recipe.spo.plots.table import lay_out, markdown, terminal, write_csv
from recipe.spo.training_log import LogError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: instead of the process's own.

    Returns:
        Exit status: 0, or 2 after one line about input that cannot be used.
    """
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (LogError, BandError, ResultError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m recipe.spo.plots", description=__doc__.split("\n\n")[0])
    commands = top.add_subparsers(required=True, metavar="curves|table")
    curves = commands.add_parser(
        "curves",
        help="accuracy against steps, optimiser steps, generated tokens or time, from training logs",
        description="Draw accuracy from training logs (verl's file tracker) as PNG, SVG and CSV. Runs with the "
        "same LABEL are seeds of one method: a mean line with a band, over the x that all seeds reach.",
    )
    curves.add_argument(
        "logs",
        nargs="+",
        metavar="LABEL=FILE[,FILE]",
        help="a run's metrics.jsonl; a run that was resumed: its files in order, with commas",
    )
    curves.add_argument("--x", choices=[*AXES, "all"], default="steps", help="default: %(default)s")
    curves.add_argument(
        "--band",
        choices=["se", "range"],
        default="se",
        help="around the mean of seeds: standard error, or lowest to highest (default: %(default)s)",
    )
    curves.add_argument(
        "--validation-size",
        type=sized,
        action="append",
        default=[],
        metavar="[SOURCE=]N",
        help="problems of the validation: gives a single seed its binomial standard error; repeat for several sources",
    )
    curves.add_argument("--source", help="draw this data source only (default: one panel each)")
    curves.add_argument("--title", default="", help="title of the picture")
    curves.add_argument("--out", type=Path, default=Path("."), help="folder to write to (default: %(default)s)")
    curves.set_defaults(run=run_curves)
    table = commands.add_parser(
        "table",
        help="context size x data set x model, from evaluation results",
        description="Lay evaluation results out as the paper's table: table.md, table.csv, and on the terminal.",
    )
    table.add_argument(
        "results",
        nargs="+",
        metavar="[LABEL=]RESULT",
        help="folders of evaluations, or the result.json in them; the label is what the model is called "
        "(default: as it was evaluated)",
    )
    table.add_argument("--published", action="store_true", help="add the paper's numbers, marked as published")
    table.add_argument("--out", type=Path, default=Path("."), help="folder to write to (default: %(default)s)")
    table.set_defaults(run=run_table)
    return top


def sized(text: str) -> tuple[str, int]:
    """Parse `N` or `SOURCE=N`; the source of a bare number is empty."""
    source, _, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not N or SOURCE=N, N a number of problems")
    return source, int(number)


def run_curves(options: argparse.Namespace) -> None:
    """Draw the pictures.

    Raises:
        LogError: a log cannot be used.
        BandError: seeds of a method have no x in common.
    """
    runs = [load(argument) for argument in options.logs]
    if options.source:
        runs = [pick_source(run, options.source) for run in runs]
    methods = group(runs)
    sizes = dict(options.validation_size)
    sources = list(dict.fromkeys(source for run in runs for source in run.accuracy))
    unknown = sizes.keys() - {"", *sources}
    if unknown:
        raise LogError(f"--validation-size: no run was validated on {', '.join(unknown)}, but on {', '.join(sources)}")
    if "" in sizes and len(sources) > 1:
        raise LogError(f"--validation-size: say of which data source, as {sources[0]}={sizes['']}")
    # All pictures are worked out before the first is written: an error leaves no half of them behind.
    axes = list(AXES.values()) if options.x == "all" else [AXES[options.x]]
    pictures = [(axis, panels_of(methods, sources, axis, options.band, sizes)) for axis in axes]
    for axis, panels in pictures:
        stem = options.out / f"accuracy_{axis.name}"
        files = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".csv")]
        save(draw(panels, axis, options.title), *files[:2])
        write_points(panels, axis, files[2])
        print("\n".join(map(str, files)))


def panels_of(
    methods: dict[str, list[Run]], sources: Sequence[str], axis: Axis, spread: str, sizes: dict[str, int]
) -> Panels:
    """Average every method's seeds for every data source that it was validated on.

    Args:
        methods: label -> seeds.
        sources: data sources, in the order of their panels.
        axis: what x is.
        spread: what the band is, `se` or `range`.
        sizes: data source -> number of problems; the empty name stands for all.

    Returns:
        data source -> label -> line.

    Raises:
        LogError: a log does not hold what the axis needs.
        BandError: seeds have no x in common.
    """
    panels: dict[str, dict] = {source: {} for source in sources}
    for source in sources:
        for label, seeds in methods.items():
            if source not in seeds[0].accuracy:
                continue
            size = sizes.get(source, sizes.get("", 0))
            try:
                band = average([points(seed, source, axis) for seed in seeds], spread, size)
            except BandError as error:
                names = ", ".join(seed.name for seed in seeds)
                raise BandError(f"{label!r} against {axis.name}: {error} ({names})") from None
            if band.cut:
                left_out = f"{band.cut} validation{'s' if band.cut > 1 else ''} beyond that left out"
                print(
                    f"note: {label} is drawn for the {axis.name} that all its seeds have; {left_out}", file=sys.stderr
                )
            panels[source][label] = band
    return panels


def run_table(options: argparse.Namespace) -> None:
    """Write the table and print it.

    Raises:
        ResultError: a result file cannot be used, or two are for one cell.
    """
    cells = [read_named(argument) for argument in options.results] + (published() if options.published else [])
    grid = lay_out(cells)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(markdown(grid), encoding="utf-8")
    write_csv(cells, options.out / "table.csv")
    console = Console(highlight=False)
    console.print(terminal(grid))
    for note in [*grid.notes, f"{options.out / 'table.md'}", f"{options.out / 'table.csv'}"]:
        console.print(note, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
