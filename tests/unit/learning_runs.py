"""A bench of learning curves without training: a launcher that writes the log that a run would have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks.learning.command import main
from benchmarks.learning.plan import Run, Variant
from benchmarks.learning.starts import Start
from benchmarks.learning.store import METRICS
from examples.launch import Outcome

SOURCE = "spo/arithmetic"
TOKENS = 40  # a step
FEW = ("--methods", "grpo-mask,tree")


def accuracy_of(run: Run, tokens: float) -> float:
    """Rises from .2 in a straight line, by method, seed and rate."""
    slope = {"grpo-mask": 2.0, "tree": 3.0, "chain": 1.0}.get(run.method.base, 1.5)
    bonus = {3e-5: 0.5, 1e-4: 1.0, 3e-4: 0.8}.get(run.rate, 1.0)
    return 0.2 + 1e-3 * tokens * slope * bonus * (1 + 0.1 * (run.seed % 100))


def write_log(folder: Path, run: Run, tokens: int = TOKENS) -> None:
    records, step, total = [], 0, 0
    while True:
        data = {} if step == 0 else {"spo/generated_tokens": tokens, "timing_s/step": 2.5, "spo/optimizer_steps": 2}
        if step:
            data |= {"spo/root_value": 0.3, "spo/trained_tokens": 7, "actor/lr": run.rate, "not/kept": 1 / 3}
        total = step * tokens
        if step % run.validate_every == 0 or total >= run.budget:
            data[f"val-core/{SOURCE}/acc/mean@1"] = accuracy_of(run, total)
        records.append({"step": step, "data": data})
        if total >= run.budget:
            break
        step += 1
    (folder / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records))


class Launcher:
    """Writes logs instead of training, and remembers which.

    Args:
        ends: what each run does before its log is written: raises, or gives an exit code.
    """

    def __init__(self, ends: Callable[[Run], int] = lambda run: 0) -> None:
        self.ends, self.runs = ends, []

    def __call__(self, run: Run, folder: Path, start: Start, console: Console) -> Outcome:
        self.runs.append(run)
        (folder / "train.log").write_text("the end\n")
        code = self.ends(run)
        if code == 0:
            write_log(folder, run)
        return Outcome(code, 12.0, 1.5)

    @property
    def paths(self) -> list[str]:
        return [str(run.path) for run in self.runs]


def make_start(out: Path, variant: Variant, problems: int, console: Console) -> Start:
    """Data and policy that nobody reads."""
    task = {"min_steps": variant.task.min_steps, "max_steps": variant.task.max_steps, "max_number": 9}
    return Start(out / "data", out / "policy", {"task": task, "problems": problems, "policy_sha256": variant.name})


def bench(out: Path, *arguments: str, launcher: Launcher | None = None) -> tuple[int, Launcher]:
    """Run the command with small budgets; returns its exit status and what was launched."""
    launcher = launcher or Launcher()
    small = ["--out", str(out), "--budget", "100", "--tune-budget", "80", "--problems", "100"]
    small += ["--grid", "3e-5,1e-4,3e-4"]
    return main([*small, *arguments], launcher, make_start), launcher


def error_of(capsys) -> str:
    """The one line that a command has written to stderr."""
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1, line
    return line
