"""`make check-experiments`: two steps of each published experiment on the CPU, with its own method settings.

Model, lengths and batch sizes are those of `recipe/spo/config/overlay/tiny_cpu.yaml`, data and policy those of
`make demo`. It shows that every configuration runs through the real stack, not that it learns. Beside the tokens
that a run generated stands what `recipe.spo.expected` expects of the same questions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.demo import prepare
from examples.expectation import expected_of
from examples.launch import show_failure, train
from recipe.spo.overrides import EXPERIMENTS
from recipe.spo.training_log import LogError, curves, read_records

STEPS, VALIDATION = 2, 256
#: How far the tokens of eight questions may be from what the plan expects.
TOLERANCE = 0.2


@dataclass(frozen=True, slots=True)
class Result:
    """How one experiment went.

    Attributes:
        name: the experiment.
        steps: training steps that were logged.
        rows: rows that trained, over all steps.
        trained_tokens: tokens that trained, once each, over all steps.
        generated_tokens: tokens that were sampled for training.
        expected_tokens: what the plan expects that to be on average, for the lengths of the policy's responses.
        seconds: from start to exit.
        peak_memory_gib: of all of its processes.
        problem: what is wrong; "" if nothing is.
    """

    name: str
    steps: int
    rows: int
    trained_tokens: int
    generated_tokens: int
    expected_tokens: int
    seconds: float
    peak_memory_gib: float
    problem: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments (default: all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/check_experiments"), help="default: %(default)s")
    parser.add_argument(
        "--demo", type=Path, default=Path("outputs/demo"), help="data and policy (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=float, default=1800, help="seconds an experiment may take (default: %(default)s)"
    )
    parser.add_argument(
        "--override", action="append", default=[], help="of verl, for every experiment; may be repeated"
    )
    arguments = parser.parse_args()
    known = experiment_names()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no experiment is called {', '.join(unknown)}; there are {', '.join(known)}")
    names = arguments.names or known
    # In a log file, which has no width of its own, the table is not to be squeezed into 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    arguments.demo.mkdir(parents=True, exist_ok=True)
    try:
        data, policy = prepare(arguments.demo, VALIDATION, console)
    except subprocess.CalledProcessError as error:
        return error.returncode
    results: list[Result] = []
    try:
        for number, name in enumerate(names, 1):
            console.print(f"\n[bold]{number} of {len(names)}: {name}[/bold]")
            out = arguments.out / name
            results.append(check(name, out, [*paths(data, policy, out), *arguments.override], arguments.limit, console))
    except KeyboardInterrupt:
        console.print("Stopped.")
        show(results, console)
        return 130
    show(results, console)
    report = arguments.out / "summary.json"
    report.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")
    console.print(f"The same: {report}")
    return 1 if any(result.problem for result in results) else 0


def experiment_names() -> list[str]:
    """All experiments, sorted."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def paths(data: Path, policy: Path, out: Path) -> list[str]:
    """Overrides that say where things are, that nothing is kept or resumed, and that questions come in their order."""
    return [
        f"data.train_files={data / 'train.parquet'}",
        f"data.val_files={data / 'validation.parquet'}",
        "data.shuffle=False",  # so that the expectation is about the same questions
        f"actor_rollout_ref.model.path={policy}",
        f"trainer.default_local_dir={out / 'checkpoints'}",
        "trainer.resume_mode=disable",
        "trainer.save_freq=-1",
        "trainer.val_before_train=False",
        "trainer.logger=[console,file]",
    ]


def command(name: str, overrides: Sequence[str]) -> list[str]:
    """The training command of an experiment on the small scale."""
    return [
        *(sys.executable, "-m", "recipe.spo.main_spo"),
        f"experiments={name}",
        "overlay=tiny_cpu",
        *overrides,
    ]


def check(name: str, out: Path, overrides: Sequence[str], limit: float, console: Console) -> Result:
    """Run one experiment for its two steps.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run has cleaned up by then.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    metrics, log = out / "metrics.jsonl", out / "train.log"
    line = command(name, overrides)
    expected = expected_of([part for part in line if "=" in part], STEPS)
    started = time.monotonic()
    outcome = train(
        line,
        {"VERL_FILE_LOGGER_PATH": str(metrics), "SPO_OUTPUT_DIR": str(out)},
        metrics=metrics,
        log=log,
        steps=STEPS,
        console=console,
        limit=limit,
    )
    if outcome.exit_code != 0:
        show_failure(log, outcome.exit_code, console)
    result = judge(name, metrics, outcome.exit_code, expected, time.monotonic() - started, outcome.peak_memory_gib)
    if result.problem:
        console.print(f"[red]{result.problem}[/red]; {log}")
    return result


def judge(name: str, metrics: Path, exit_code: int, expected: float, seconds: float, peak_memory_gib: float) -> Result:
    """Read what a run has logged, and say what is wrong with it."""
    problem = f"exit code {exit_code}" if exit_code else ""
    try:
        run = curves(read_records(metrics))
        steps, totals = run.steps, run.totals
    except LogError as error:
        steps, totals, problem = 0, {}, problem or str(error)
    rows, trained = int(totals.get("trained_rows", 0)), int(totals.get("trained_tokens", 0))
    if not problem and steps != STEPS:
        problem = f"{steps} steps instead of {STEPS}"
    if not problem and totals["failed_questions"]:
        problem = f"{totals['failed_questions']:.0f} questions failed"
    if not problem and not (rows and trained):
        problem = f"trained {rows} rows, {trained} tokens"
    generated = int(totals.get("generated_tokens", 0))
    if not problem and abs(generated / expected - 1) > TOLERANCE:
        problem = f"generated {generated:,} tokens, expected {expected:,.0f}: more than {TOLERANCE:.0%} apart"
    return Result(
        name, steps, rows, trained, generated, round(expected), round(seconds, 1), round(peak_memory_gib, 2), problem
    )


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table at the end."""
    table = Table(title="Two steps of each experiment")
    counted = ("steps", "rows", "tokens trained", "generated", "expected", "seconds", "GiB")
    table.add_column("experiment", min_width=max(len(r.name) for r in results) if results else None)
    for column in (*counted, "result"):
        table.add_column(column, justify="left" if column == "result" else "right")
    for r in results:
        counts = (r.steps, r.rows, r.trained_tokens, r.generated_tokens, r.expected_tokens)
        verdict = f"[red]{r.problem}[/red]" if r.problem else "ok"
        table.add_row(r.name, *map("{:,}".format, counts), f"{r.seconds:.0f}", f"{r.peak_memory_gib:.1f}", verdict)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
