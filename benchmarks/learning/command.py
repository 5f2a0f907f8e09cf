"""The command line of `python -m benchmarks.learning`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.learning.errors import LearningError, NothingToReport
from benchmarks.learning.plan import (
    BUDGET,
    GRID,
    MAIN,
    METHODS,
    PHASES,
    PROBLEMS,
    TUNE,
    TUNE_BUDGET,
    TUNE_SEED,
    TUNE_VARIANT,
    VARIANTS,
    Method,
    Run,
    main_runs,
    parse_method,
    parse_rate,
    tuning_runs,
)
from benchmarks.learning.publish import adopt, publish
from benchmarks.learning.rates import DEMO, RATES, rates_of, tune_rates
from benchmarks.learning.report import show_report
from benchmarks.learning.running import Failure, Launch, do_runs, launch
from benchmarks.learning.starts import Start, make_start
from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import locked

PROG = "python -m benchmarks.learning"
EXAMPLES = f"""examples:
  {PROG}                                        everything: tune, then hard seeds 0 to 2, then easy seed 0
  {PROG} --only tune --methods grpo-mask,tree    some of it; the same command goes on where it stopped
  {PROG} --only main --variants hard --seeds 1
  {PROG} --method "tree-666=tree algorithm.spo.tree.branch_factors=[6,6,6]" --methods tree-666
  {PROG} --report                                tables and pictures of what is finished
  {PROG} --publish docs/evidence/learning        the same, with a small copy of the logs, there
  {PROG} --from docs/evidence/learning           go on with what was published, from the same start policies
exit status: 0 done, 1 a run failed, 2 wrong input, 130 interrupted"""


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asks for.

    Attributes:
        out: folder of the bench.
        phases: `TUNE`, `MAIN` or both.
        methods: what trains.
        variants: names, of the main phase.
        seeds: of every variant; None: each variant's own.
        rates: file of learning rates, or `DEMO`.
        grid: rates that are tried.
        budget: generated tokens of a run of the main phase.
        tune_budget: of the phase that tunes.
        problems: of a validation.
    """

    out: Path
    phases: tuple[str, ...]
    methods: tuple[Method, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...] | None
    rates: str
    grid: tuple[float, ...]
    budget: int
    tune_budget: int
    problems: int

    def tuning(self) -> list[Run]:
        return tuning_runs(self.methods, self.grid, self.tune_budget) if TUNE in self.phases else []

    def main(self, rates: dict[str, float]) -> list[Run]:
        if MAIN not in self.phases:
            return []
        return main_runs([VARIANTS[name] for name in self.variants], self.seeds, self.methods, rates, self.budget)


def main(
    arguments: Sequence[str] | None = None, launch: Launch = launch, make_start: Callable[..., Start] = make_start
) -> int:
    """Run the command line.

    Args:
        arguments: instead of the process's own.
        launch: trains one run; the tests have another.
        make_start: makes data and policy; the tests have another.

    Returns:
        Exit status: 0, 1 after runs that failed, 2 after one line about wrong input, 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        job = job_of(options)
        if options.report or options.publish is not None:
            return report(job, options.publish, console)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with locked(job.out):
            if options.source is not None:
                console.print(f"{adopt(options.source, job.out)} runs taken from {options.source}")
            return work(job, console, launch, make_start)
    except (LearningError, EvaluationError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on: finished runs are kept, the one under way is done anew.")
        return 130


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog=PROG,
        description="Train every method on the same generated arithmetic until it has generated the same number of "
        "tokens, several seeds each, with a learning rate tuned for it. Hours on two cores; an interrupted bench goes "
        "on with the same command.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = top.add_argument
    add("--out", type=Path, default=Path("outputs/bench-learning"), help="folder of the bench (default: %(default)s)")
    add("--only", choices=PHASES, help="this phase alone: tune chooses learning rates, main is what is compared")
    add("--methods", metavar="A,B", help=f"these alone (default: {','.join(METHODS)}, and those of --method)")
    add(
        "--method",
        action="append",
        default=[],
        metavar="'LABEL=METHOD key=value ...'",
        help="one more: a method with verl's overrides of its own; with actor_rollout_ref.actor.optim.lr=RATE it is "
        "not tuned; may be repeated",
    )
    add("--variants", metavar="A,B", help=f"of the task, in the main phase (default: {','.join(VARIANTS)})")
    own = "; ".join(f"{','.join(map(str, variant.seeds))} for {name}" for name, variant in VARIANTS.items())
    add("--seeds", metavar="N,N", help=f"of the main phase, for every variant (default: {own})")
    add(
        "--budget",
        type=int,
        default=BUDGET,
        metavar="N",
        help="generated tokens of a run (default: %(default)s); --report and --publish go by what their runs say",
    )
    add("--tune-budget", type=int, default=TUNE_BUDGET, metavar="N", help="those while tuning (default: %(default)s)")
    grid = ",".join(f"{rate:g}" for rate in GRID)
    add("--grid", default=grid, metavar="X,X", help="learning rates to try (default: %(default)s)")
    add("--rates", metavar="FILE", help=f"learning rates; {DEMO}: the demo's for all (default: OUT/{RATES})")
    add("--problems", type=int, default=PROBLEMS, metavar="N", help="of a validation (default: %(default)s)")
    add(
        "--from",
        type=Path,
        dest="source",
        metavar="DIR",
        help="before anything else, take what --publish wrote there and OUT has not: runs, learning rates, and the "
        "start policies, which another kind of processor would fit otherwise",
    )
    add("--report", action="store_true", help="no runs: tables and pictures of what is finished, into OUT")
    add("--publish", type=Path, metavar="DIR", help="no runs: small copies of what is finished, and the report, in DIR")
    return top


def job_of(options: argparse.Namespace) -> Job:
    """Check the command line.

    Raises:
        LearningError: an option is wrong; the message names it.
    """
    own = [parse_method(text) for text in options.method]
    known = METHODS | {method.label: method for method in own}
    if len(known) < len(METHODS) + len(own):
        raise LearningError("--method: two of them have the same label; choose another")
    for name in ("budget", "tune_budget", "problems"):
        if getattr(options, name) < 1:
            raise LearningError(f"--{name.replace('_', '-')} is {getattr(options, name)}: it must be at least 1")
    if options.source is not None and (options.report or options.publish is not None):
        raise LearningError(
            f"--from {options.source} is for a bench that runs; --report and --publish run nothing: give either"
        )
    if options.rates is not None and options.only == TUNE:
        raise LearningError(f"--rates {options.rates}: the phase tune makes {RATES}; leave out --rates or --only tune")
    seeds = None
    if options.seeds is not None:
        words = _listed("--seeds", options.seeds)
        if not all(word.isdecimal() and word.isascii() for word in words):
            raise LearningError(f"--seeds {options.seeds!r}: give whole numbers with commas, such as 0,1,2")
        seeds = tuple(map(int, words))
        if TUNE_SEED in seeds:
            raise LearningError(f"--seeds: {TUNE_SEED} is the seed that learning rates are tuned with; choose others")
    phases = (MAIN,) if options.rates is not None else PHASES  # rates that are given need no tuning
    methods = _chosen("--methods", options.methods, known)
    return Job(
        out=options.out,
        phases=(options.only,) if options.only else phases,
        methods=tuple(known[label] for label in methods),
        variants=_chosen("--variants", options.variants, VARIANTS),
        seeds=seeds,
        rates=options.rates or str(options.out / RATES),
        grid=tuple(sorted({parse_rate(word, "--grid") for word in _listed("--grid", options.grid)})),
        budget=options.budget,
        tune_budget=options.tune_budget,
        problems=options.problems,
    )


def _listed(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(set(words)) < len(words):
        raise LearningError(f"{name} {text!r}: give each once, with commas between them")
    return words


def _chosen(name: str, text: str | None, known: dict) -> tuple[str, ...]:
    """The names that are asked for, in the order of what there is."""
    if text is None:
        return tuple(known)
    words = _listed(name, text)
    unknown = [word for word in words if word not in known]
    if unknown:
        raise LearningError(f"{name}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(label for label in known if label in words)


def work(job: Job, console: Console, launch: Launch, make_start: Callable[..., Start]) -> int:
    """Do the phases and report; returns the exit status.

    Raises:
        LearningError, EvaluationError: something is wrong before a run starts, or a folder cannot be used.
        KeyboardInterrupt: Ctrl-C.
    """
    tuning = job.tuning()
    if TUNE not in job.phases:
        _, without = rates_of(job.methods, job.rates, job.out)
        if without:
            raise LearningError(
                f"{job.rates} has no learning rate for {', '.join(without)}: tune them first (--only tune), choose "
                f"others with --methods, or give --rates {DEMO}"
            )
    names = [*([TUNE_VARIANT] if tuning else []), *(job.variants if MAIN in job.phases else [])]
    starts: dict[str, Start] = {}
    for name in dict.fromkeys(names):
        console.print(f"[bold]What the runs of {name} start from[/bold]")
        starts[name] = make_start(job.out, VARIANTS[name], job.problems, console)
    failures: list[Failure] = []
    if tuning:
        failures += do_runs(tuning, job.out, starts, console, launch)
        tune_rates(job.out, job.methods, job.grid, job.tune_budget, console)
    runs: list[Run] = []
    if MAIN in job.phases:
        rates, without = rates_of(job.methods, job.rates, job.out)
        for label in without:
            console.print(
                f"[red]left out:[/red] {label} has no learning rate, since not all of its tuning runs ended well"
            )
        runs = job.main(rates)
        failures += do_runs(runs, job.out, starts, console, launch)
    with suppress(NothingToReport):
        show_report(job.out, [run.path for run in (*tuning, *runs)], console)
    for failure in failures:
        console.print(f"[red]failed:[/red] {failure.run.title}: {failure.problem} ({failure.folder})")
    return 1 if failures else 0


def report(job: Job, target: Path | None, console: Console) -> int:
    """Make the report, in the bench's folder or with small copies elsewhere; returns the exit status.

    Raises:
        LearningError, EvaluationError: there is nothing to report, or folders cannot be used.
    """
    if not job.out.is_dir():
        state = "is no folder" if job.out.exists() else "does not exist"
        raise LearningError(f"--out {job.out} {state}: nothing to report")
    if target is not None:
        console.print(f"{publish(job.out, target)} runs copied to {target}")
    # Rates that were chosen elsewhere are not missing here.
    tuning = job.tuning() if (job.out / TUNE).exists() or not (job.out / RATES).exists() else []
    # The rates do not matter here: a folder of the main phase does not bear one.
    everything = dict.fromkeys((method.label for method in job.methods), 1.0)
    planned = [run.path for run in (*tuning, *job.main(everything))]
    show_report(target or job.out, planned, console)
    return 0
