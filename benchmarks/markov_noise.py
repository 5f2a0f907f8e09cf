"""Tokens that each method needs for the same update, on a task with exactly known values.

    python -m benchmarks.markov_noise [--right 0.75 0.95] [--steps 9] [--markdown FILE]

`benchmarks/markov_task.py` has the task: answers of so many steps, right where all steps are.

With mean m, covariance C and c generated tokens of a question's gradient, and t the true gradient's direction, an
update from N questions has length N (m . t) along the truth and noise N tr C: signal and noise are level after

    c tr C / (m . t)^2    generated tokens.

That is the figure. It is given twice: each step a skill of its own (t has a component a step), and one skill for all
(a single logit: the components are added up). A real policy is somewhere between. The probability mask and PPO's
clipping have no part in it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.markov_task import RULES, Array, Chain, Task, Tree
from recipe.spo.json_files import write_text

#: Questions are drawn in so many parts, whose figures give the standard error.
PARTS = 10


class TooFew(ValueError):
    """Too few questions to see a gradient."""


Method = Tree | Chain

METHODS: tuple[Method, ...] = (
    *(Tree((n,), rule=rule) for n in (12, 24, 36) for rule in ("mean", "std")),
    *(
        Tree(shape, cuts, rule)
        for shape, cuts in (
            ((12, 2), (2,)),
            ((12, 3), (6,)),
            ((24, 2), (7,)),
            ((6, 6), (4,)),
            ((3, 3, 3), (3, 6)),
            ((6, 6, 6), (3, 6)),
        )
        for rule in RULES
    ),
    *(Chain(*shape) for shape in ((4, 1, 3), (4, 3, 3), (8, 3, 1), (8, 3, 9), (12, 3, None))),
)


@dataclass(frozen=True, slots=True)
class Need:
    """Generated tokens after which signal and noise of an update are level, and their standard errors.

    Attributes:
        own: each step a skill of its own.
        shared: one skill for all steps.
        cosine: between the mean gradient and the true one.
    """

    tokens: float
    own: float
    own_error: float
    shared: float
    shared_error: float
    cosine: float


def need(method: Method, task: Task, questions: int, seed: int) -> Need:
    """Measure a method.

    Args:
        method: what is drawn.
        task: what it is drawn from.
        questions: how many, in `PARTS` parts.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    parts = [method.draw(task, max(2, questions // PARTS), random) for _ in range(PARTS)]
    tokens = statistics.fmean(spent for spent, _ in parts)
    every = np.concatenate([gradient for _, gradient in parts])
    own, shared = figures(every, task.truth, tokens)
    # Leaving out a part at a time: the figures are ratios, of which a single part gives a biased one.
    left = [
        figures(np.concatenate([g for j, (_, g) in enumerate(parts) if j != i]), task.truth, tokens)
        for i in range(PARTS)
    ]
    own_error, shared_error = (math.sqrt((PARTS - 1) * np.var([each[k] for each in left])) for k in (0, 1))
    mean = every.mean(0)
    cosine = float(mean @ task.truth / np.linalg.norm(mean) / np.linalg.norm(task.truth))
    return Need(tokens, own, own_error, shared, shared_error, cosine)


def figures(gradients: Array, truth: Array, tokens: float) -> tuple[float, float]:
    """c tr C / (m . t)^2, each step a skill of its own, and one skill for all.

    Args:
        gradients: of questions, shape (questions, steps).
        truth: the true gradient, shape (steps,).
        tokens: c, generated for a question.

    Raises:
        TooFew: there is no gradient at all.
    """
    mean, direction = gradients.mean(0), truth / np.linalg.norm(truth)
    if not mean.any():
        raise TooFew("no answer was right, or none wrong; draw more --questions")
    added = gradients.sum(1)
    own = tokens * gradients.var(0, ddof=1).sum() / (mean @ direction) ** 2
    return float(own), float(tokens * added.var(ddof=1) / added.mean() ** 2)


HEADER = ("method", "tokens a question", "own skills", "one skill", "cosine of the mean")


def table(task: Task, methods: Sequence[Method], questions: int, seed: int) -> str:
    """A Markdown table of needs, relative to the first method's."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    first: Need | None = None
    for method in methods:
        found = need(method, task, questions, seed)
        first = first or found
        own = ratio(found.own, found.own_error, first.own, first.own_error)
        shared = ratio(found.shared, found.shared_error, first.shared, first.shared_error)
        cells = [method.title, f"{found.tokens:,.0f}", own, shared, f"{found.cosine:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(value: float, error: float, other: float, other_error: float) -> str:
    """A quotient of two independent figures, with its standard error."""
    return f"{value / other:.2f} ± {value / other * math.hypot(error / value, other_error / other):.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them where `--markdown` says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.markov_noise",
        description="How many generated tokens each method needs for an update as exact as that of a group of 12, on a "
        "task with exactly known values. Under a minute; numpy alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--right", type=float, nargs="+", default=[0.75, 0.85, 0.95], metavar="P", help="probability of a right step"
    )
    parser.add_argument("--steps", type=int, default=9, metavar="N", help="of an answer; 8 or more")
    parser.add_argument("--questions", type=int, default=20_000, metavar="N", help="drawn for each method")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args(arguments)
    if any(not 0 < right < 1 for right in options.right):
        parser.error("--right must be above 0 and below 1")
    if options.steps < 8:
        parser.error("--steps must be at least 8: a tree is cut after 7")
    if options.questions < 2 * PARTS:
        parser.error(f"--questions must be at least {2 * PARTS}")
    if options.markdown is not None and not options.markdown.parent.is_dir():
        parser.error(f"--markdown {options.markdown}: its folder does not exist")
    parts = []
    for right in options.right:
        title = f"**{right:g} of the steps right, {right**options.steps:.1%} of the answers**"
        try:
            rows = table(Task(options.steps, right), METHODS, options.questions, options.seed)
        except TooFew as error:
            parser.error(f"--right {right:g}: {error}")
        parts.append(f"{title} (relative to the first line; less is better)\n\n{rows}")
        print(parts[-1] + "\n", flush=True)
    if options.markdown is not None:
        write_text(options.markdown, "\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
