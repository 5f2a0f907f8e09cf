"""The command line of `python -m recipe.spo.bench_values`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.spo.bench.suite import Suite
from recipe.spo.compat.machine import is_cpu_machine
from recipe.spo.compat.verl_cpu import prepare_environment
from recipe.spo.evaluation.errors import EvaluationError, one_line

if TYPE_CHECKING:
    from recipe.spo.bench.run import Bench

PROG = "python -m recipe.spo.bench_values"
EXAMPLES = f"""examples:
  {PROG} outputs/demo/policy --data outputs/demo/data --out outputs/bench
  {PROG} MODEL --data data/gsm8k --max-new-tokens 512 --trees 4-4-4,6-6-6@30 --cut-trees 4-4-4@60 --out DIR
An interrupted bench goes on with the same command, and ends in the same numbers."""

#: Columns of a table that is not shown on a terminal.
FILE_WIDTH = 150


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 2 for wrong input, 130 after an interruption."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except EvaluationError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Measure the values, advantages and policy gradients of all methods against the ground truth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, suite = parser.add_argument, Suite()
    add("model", help="Hugging Face folder, verl checkpoint, or hub id")
    add("--data", type=Path, required=True, help="parquet file of data_prep, or the folder with it")
    add("--split", help="file in that folder (default: test)")
    add("--out", type=Path, required=True, help="folder of the result")
    add("--questions", type=int, default=16, help="from the beginning of the file (default: %(default)s)")
    add("--responses", type=int, default=2, help="references a question, at least 2 (default: %(default)s)")
    add("--truth", type=int, default=256, metavar="K", help="continuations of a state (default: %(default)s)")
    add(
        "--tolerance",
        type=float,
        default=0.05,
        help="states whose values differ by no more than this for certain share their continuations; 0: none do "
        "(default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    sampling = parser.add_argument_group("sampling, as in training")
    for name, kind, default, text in (
        ("--temperature", float, 1.0, "above 0"),
        ("--top-p", float, 1.0, "1 keeps all tokens"),
        ("--top-k", int, -1, "-1 keeps all tokens"),
        ("--max-new-tokens", int, 96, "tokens of a response"),
        ("--cut-threshold", float, 0.9, "probability below which chains and cut-point trees cut"),
        ("--mask-threshold", float, 0.9, "probability below which the mask lets tokens train"),
    ):
        sampling.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")
    sampling.add_argument(
        "--stop", action="append", default=[], help="text that ends a response; may be given again (default: none)"
    )
    sizes = parser.add_argument_group("methods")
    for name, kind, text in (
        ("groups", int, "responses of a group"),
        ("continuations", int, "K of chains"),
        ("trees", str, "SHAPE,SHAPE,...@SEGMENT_LENGTH; sizes of one family"),
        ("cut_trees", str, "the same, segments ending after improbable tokens"),
    ):
        default = getattr(suite, name)
        shown = f"{text} (default: {' '.join(map(str, default))})"
        sizes.add_argument(f"--{name.replace('_', '-')}", type=kind, nargs="*", default=list(default), help=shown)
    for name, kind, text in (
        ("trajectories", int, "responses of a chain"),
        ("cut_interval", int, "improbable tokens a segment"),
        ("shrinkage", float, "strength of the shrinkage rule, in responses"),
    ):
        default = getattr(suite, name)
        sizes.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=default, help=f"{text} (default: %(default)s)"
        )
    add("--question-tokens", type=float, default=700, help="budget to compare families at (default: %(default)s)")
    add("--step-tokens", type=float, default=16000, help="budget to compare gradients at (default: %(default)s)")
    add("--no-gradient", action="store_true", help="leave the policy gradient out")
    add("--chunk", type=int, default=2, help="questions kept at a time (default: %(default)s)")
    add("--task", help="gsm8k, math or point24 (default: what data_source says)")
    add("--grader", metavar="MODULE:FUNCTION", help="a reward function of your own, giving 0 or 1")
    add("--dtype", default="auto", help="of sampling: auto (that of the weights), float32, bfloat16 or float16")
    add("--tensor-parallel-size", type=int, default=1, metavar="N", help="devices that share the model")
    add("--gpu-memory-utilization", type=float, metavar="SHARE", help="vLLM's share of a GPU's memory")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    rules = {
        "questions must be at least 2, for intervals": arguments.questions >= 2,
        "responses must be at least 2, to compare siblings": arguments.responses >= 2,
        "truth must be at least 2, for standard errors": arguments.truth >= 2,
        "tolerance must be at least 0 and below 1": 0 <= arguments.tolerance < 1,
        "seed must be at least 0": arguments.seed >= 0,
        "chunk must be at least 1": arguments.chunk >= 1,
        "temperature must be above 0 and at most 5": 0 < arguments.temperature <= 5,
        "top_p must be above 0 and at most 1": 0 < arguments.top_p <= 1,
        "top_k must be -1 or at least 1": arguments.top_k == -1 or arguments.top_k >= 1,
        "max_new_tokens must be at least 1": arguments.max_new_tokens >= 1,
        "stop must not be an empty string": all(arguments.stop),
        "cut_threshold must be above 0 and at most 1": 0 < arguments.cut_threshold <= 1,
        "mask_threshold must be above 0 and at most 1": 0 < arguments.mask_threshold <= 1,
        "question_tokens must be above 0": 0 < arguments.question_tokens < math.inf,
        "step_tokens must be above 0": 0 < arguments.step_tokens < math.inf,
        "groups must be given": bool(arguments.groups),
        "continuations must be given": bool(arguments.continuations),
    }
    for rule, good in rules.items():
        if not good:
            name = rule.split()[0]
            text = f"--{name.replace('_', '-')} {getattr(arguments, name)} {rule.removeprefix(name).strip()}"
            raise EvaluationError(text)


def _run(arguments: argparse.Namespace) -> int:
    """Everything that can be wrong is looked at before vLLM is loaded."""
    from recipe.spo.evaluation.store import locked

    _check(arguments)
    suite = Suite(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Suite)})
    methods = suite.methods(arguments.responses)
    if is_cpu_machine():
        prepare_environment()
    from recipe.spo.bench.assembly import assemble

    told = _Told()
    opened, fingerprint = assemble(arguments, suite, methods, told)
    with locked(arguments.out):
        return _finish(opened(), fingerprint, arguments, told)


class _Told:
    """Counts generated tokens, and shows them behind a progress bar."""

    def __init__(self) -> None:
        self.tokens, self.bar = 0, None

    def __call__(self, tokens: int) -> None:
        self.tokens += tokens
        if self.bar is not None:
            self.bar.set_postfix_str(f"{self.tokens:,} tokens generated")


def _finish(bench: Bench, fingerprint: dict[str, Any], arguments: argparse.Namespace, told: _Told) -> int:
    from rich.console import Console
    from tqdm import tqdm

    from recipe.spo.bench.analysis import analyse
    from recipe.spo.bench.files import write_files
    from recipe.spo.bench.tables import grids, rich_table
    from recipe.spo.compat.processes import owned_run

    questions, started = sum(map(len, bench.chunks)), time.monotonic()
    done = bench.done()
    if any(done.values()):
        print(
            f"{done['truth']} of {questions} questions have their truth, {done['rollouts']} their rollouts", flush=True
        )
    try:
        with owned_run(), tqdm(total=2 * questions, unit="part", smoothing=0) as bar:

            def show(part: str, count: int) -> None:
                bar.update(count)
                bar.set_description(part)

            told.bar = bar
            bench.run(show)
    except (KeyboardInterrupt, SystemExit) as stop:
        again = f"{PROG} {shlex.join(sys.argv[1:])}"
        print(f"\nstopped: {_state(bench)}; to go on: {again}", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
    measured = bench.measured()
    gradients = None if arguments.no_gradient else bench.gradients()
    budgets = (arguments.question_tokens, arguments.step_tokens)
    numbers = analyse(measured, bench.methods, gradients, arguments.mask_threshold, *budgets, arguments.seed)
    result = {"run": fingerprint, **numbers}
    paths = write_files(arguments.out, result, measured)
    _add_timing(arguments.out / "timing.json", time.monotonic() - started, told.tokens)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    for grid in grids(result):
        console.print(rich_table(grid))
        console.print()
    truth = result["truth"]
    print(
        f"truth: {truth['states']} states of {truth['responses']} responses to {truth['questions']} questions, "
        f"{truth['continuations']} continuations each, standard error {truth['root_mean_squared_standard_error']:.3f}; "
        f"mean reward {truth['mean_reward']:.2f}, {truth['mean_tokens']:.0f} tokens a response; "
        f"{truth['sibling_pairs']} pairs of siblings in {truth['sibling_questions']} questions"
    )
    print("  ".join(str(path) for path in paths))
    return 0


def _state(bench: Bench) -> str:
    done, questions = bench.done(), sum(map(len, bench.chunks))
    return f"{done['truth']} of {questions} questions have their truth, {done['rollouts']} their rollouts"


def _add_timing(path: Path, seconds: float, tokens: int) -> None:
    """Note how long it took, over all starts; no number depends on it."""
    from recipe.spo.evaluation.store import write_json

    found = {"seconds": 0.0, "generated_tokens": 0}
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            if not all(math.isfinite(there[name]) for name in found):
                raise ValueError("no numbers")
            found = {name: there[name] for name in found}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            print(f"{path} was damaged: it counts from this start on", file=sys.stderr)
            path.unlink(missing_ok=True)
    total = {"seconds": round(found["seconds"] + seconds, 1), "generated_tokens": found["generated_tokens"] + tokens}
    if tokens or not path.exists():
        write_json(path, total)
