"""Doing the runs that are not finished, one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.learning.plan import MOST_STEPS, Run
from benchmarks.learning.starts import Start
from benchmarks.learning.store import LOG, METRICS, begin, end, finished, read_record
from examples.demo import SCRIPT
from examples.launch import Outcome, show_failure, train
from recipe.spo.training_log import LogError, curves, read_records

Launch = Callable[[Run, Path, Start, Console], Outcome]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that did not end as it should.

    Attributes:
        run: which.
        folder: where its log is.
        problem: in a few words.
    """

    run: Run
    folder: Path
    problem: str


def launch(run: Run, folder: Path, start: Start, console: Console) -> Outcome:
    """Train for real, with a progress bar.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run has cleaned up by then.
    """
    places = {
        "DATA": str(start.data),
        "MODEL": str(start.policy),
        "OUT": str(folder),
        "PYTHON": sys.executable,
        "VERL_FILE_LOGGER_PATH": str((folder / METRICS).absolute()),
        "SPO_OUTPUT_DIR": str(folder.absolute()),
    }
    return train(
        ["bash", str(SCRIPT), *run.overrides],
        run.environment | places,
        metrics=folder / METRICS,
        log=folder / LOG,
        steps=MOST_STEPS,
        console=console,
        tokens=run.budget,
    )


def pending(runs: Sequence[Run], out: Path, starts: Mapping[str, Start]) -> list[Run]:
    """The runs that are not finished. All are looked at before the first starts.

    Raises:
        LearningError, EvaluationError: a folder holds something else.
    """
    return [run for run in runs if not finished(out / run.path, run.settings(starts[run.variant.name].facts))]


def do_runs(
    runs: Sequence[Run], out: Path, starts: Mapping[str, Start], console: Console, launch: Launch = launch
) -> list[Failure]:
    """Do what is not finished; a run that fails does not stop the others.

    Args:
        runs: in their order.
        out: folder of the bench.
        starts: variant -> data and policy.
        console: where progress is shown.
        launch: trains; the tests have another.

    Returns:
        The runs that failed.

    Raises:
        LearningError, EvaluationError: a folder cannot be used.
        KeyboardInterrupt: Ctrl-C.
    """
    todo, failures, seconds = pending(runs, out, starts), [], []
    if runs:
        console.print(
            f"\n[bold]{len(runs)} runs of phase {runs[0].phase}[/bold], {len(runs) - len(todo)} finished before"
        )
    for number, run in enumerate(todo, 1):
        folder, left = out / run.path, len(todo) - number + 1
        guess = f", about {left * sum(seconds) / len(seconds) / 60:.0f} min to go" if seconds else ""
        console.print(f"\n[bold]{number} of {len(todo)}: {run.title}[/bold] ({folder / LOG}){guess}")
        if read_record(folder) is not None:
            console.print("an unfinished or failed run there is removed and done anew")
        record = begin(folder, run.settings(starts[run.variant.name].facts))
        began = time.monotonic()
        outcome = launch(run, folder, starts[run.variant.name], console)
        seconds.append(time.monotonic() - began)
        problem = judge(run, folder, outcome.exit_code)
        end(
            folder,
            record,
            exit_status=outcome.exit_code,
            problem=problem,
            seconds=round(outcome.seconds, 1),
            peak_memory_gib=round(outcome.peak_memory_gib, 2),
        )
        if problem:
            failures.append(Failure(run, folder, problem))
            if outcome.exit_code != 0:
                show_failure(folder / LOG, outcome.exit_code, console)
            console.print(f"[red]failed:[/red] {problem}; going on with the next", highlight=False)
    return failures


def judge(run: Run, folder: Path, exit_code: int) -> str:
    """What is wrong with a run that has ended; "" if nothing is."""
    if exit_code != 0:
        return f"exit status {exit_code}"
    try:
        log = curves(read_records(folder / METRICS))
    except (LogError, OSError) as error:
        return str(error)
    tokens = log.totals["generated_tokens"]
    if tokens < run.budget:
        return f"it ended after {tokens:,.0f} of {run.budget:,} tokens"
    if 0 not in log.accuracy or log.steps not in log.accuracy:
        return "it was not validated before training and after its last step"
    return ""
