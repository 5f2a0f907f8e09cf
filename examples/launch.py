"""Run a training command with its output in a log file and a progress bar on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from recipe.spo.training_log import Curves, curves, read_records


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training command ended."""

    exit_code: int
    seconds: float
    peak_memory_gib: float


def train(
    command: Sequence[str],
    environment: Mapping[str, str],
    metrics: Path,
    log: Path,
    steps: int,
    console: Console,
    limit: float | None = None,
    tokens: int | None = None,
) -> Outcome:
    """Run `command` to its end; on Ctrl-C or SIGTERM wait until it has cleaned up, then raise.

    Args:
        command: the training command.
        environment: variables on top of this process's own.
        metrics: where verl's `file` tracker writes; read for the progress bar.
        log: where the command's output goes.
        steps: training steps that the bar counts to.
        console: where the bar is drawn.
        limit: after so many seconds the command is told to end (SIGTERM); its exit code then says so.
        tokens: generated tokens that the bar counts to instead, of a run that ends by them.

    Raises:
        KeyboardInterrupt: Ctrl-C; the command has ended by then.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    metrics.unlink(missing_ok=True)
    started, look_at_memory, peak = time.monotonic(), 0.0, 0.0
    deadline = None if limit is None else started + limit
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {'steps' if tokens is None else 'tokens'}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        refresh_per_second=2,
    )
    try:
        with bar:
            task = bar.add_task("starting verl, Ray and vLLM", total=tokens or steps, note="(about a minute)")
            while process.poll() is None:
                run = curves(read_records(metrics))
                if run.accuracy or run.steps:
                    last = max(run.accuracy, default=None)
                    note = "" if last is None else f"greedy accuracy {run.accuracy[last]:.1%} after step {last}"
                    bar.update(task, description="training", completed=_done(run, tokens), note=note)
                if time.monotonic() >= look_at_memory:  # adding it up over a dozen processes slows them down
                    peak = max(peak, _resident_gib(process.pid))
                    look_at_memory = time.monotonic() + 20.0
                if deadline is not None and time.monotonic() >= deadline:
                    bar.update(task, note=f"ended after {limit:.0f} seconds")
                    process.terminate()
                    deadline = None  # once: a second signal would disturb its cleaning up
                time.sleep(3.0)
            bar.update(task, completed=_done(curves(read_records(metrics)), tokens))
    except KeyboardInterrupt:
        console.print("Interrupted: waiting for the run to clean up ...")
        process.terminate()  # a terminal has sent Ctrl-C already; a plain `kill` has not
        process.wait()
        raise
    return Outcome(process.returncode, time.monotonic() - started, peak)


def _done(run: Curves, tokens: int | None) -> float:
    return run.steps if tokens is None else min(run.totals["generated_tokens"], tokens)


def _resident_gib(pid: int) -> float:
    """Proportional resident memory of a process and its descendants, shared pages counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except (psutil.Error, OSError):
            continue
    return total / 2**30


def show_failure(log: Path, exit_code: int, console: Console, lines: int = 30) -> None:
    """Print the end of a log, so that nobody has to look for it."""
    console.print(f"[red]The run ended with exit code {exit_code}.[/red] The end of {log}:")
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    console.print("\n".join(text[-lines:]), markup=False, highlight=False)
