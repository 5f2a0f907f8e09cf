"""Tokens that each method needs for the same update, on a task with exactly known values.

    python -m benchmarks.markov_noise [--right 0.75 0.95] [--steps 9] [--markdown FILE]

The arithmetic task without its arithmetic: an answer has `steps` steps of `TOKENS` tokens, each right with the same
probability, whatever came before, and earns 1 where all of them are. So V(state after k right steps) = p^(steps - k), 0
after a wrong one, and the gradient of the expected reward in the logit of a step is p^steps (1 - p). Rollouts are drawn
and credited as in training (`tests/unit/test_markov_noise.py` holds the advantages against `recipe.spo.credit`), and a
question's gradient is the sum over its trained steps of A (1[right] - p).

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
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipe.spo.credit import STD_EPSILON

Array = NDArray[np.float64]

TOKENS = 7
#: Questions are drawn in so many parts, whose figures give the standard error.
PARTS = 10


@dataclass(frozen=True, slots=True)
class Task:
    """So many steps, each right with the same probability."""

    steps: int
    right: float

    @property
    def truth(self) -> Array:
        """Gradient of the expected reward in each step's logit, shape (steps,)."""
        return np.full(self.steps, self.right**self.steps * (1 - self.right))


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree, or with one level a group.

    Attributes:
        branch_factors: children of a node at each level.
        cuts: after how many steps each level but the last ends.
        rule: credit rule, one of `RULES`.
    """

    branch_factors: tuple[int, ...]
    cuts: tuple[int, ...] = ()
    rule: str = "mean"

    @property
    def title(self) -> str:
        if not self.cuts:
            return f"group of {self.branch_factors[0]}, {self.rule}"
        shape, cuts = "-".join(map(str, self.branch_factors)), ", ".join(map(str, self.cuts))
        return f"tree {shape} cut after {cuts}, {self.rule}"

    def draw(self, task: Task, questions: int, random: np.random.Generator) -> tuple[int, Array]:
        """Draw questions.

        Returns:
            Generated tokens a question, and gradients, shape (questions, steps).
        """
        edges, segments, values = self.rollout(task, questions, random)
        gradient, tokens, nodes = np.zeros((questions, task.steps)), 0, 1
        for level, branches in enumerate(self.branch_factors):
            nodes *= branches
            first, last = edges[level], edges[level + 1]
            credit = RULES[self.rule](values, level)
            score = segments[level] - task.right
            gradient[:, first:last] = (credit[..., None] * score).reshape(questions, nodes, last - first).sum(1)
            tokens += nodes * (last - first) * TOKENS
        return tokens, gradient

    def rollout(
        self, task: Task, questions: int, random: np.random.Generator
    ) -> tuple[tuple[int, ...], list[Array], list[Array]]:
        """Draw trees and their values.

        Returns:
            The steps at which levels begin and end; for each level which steps are right, shape (questions, *branches,
            steps of the level); for each depth from 0 to the leaves the values, shape (questions, *branches).
        """
        edges, shape = (0, *self.cuts, task.steps), (questions,)
        segments: list[Array] = []
        for level, branches in enumerate(self.branch_factors):
            shape = (*shape, branches)
            segments.append((random.random((*shape, edges[level + 1] - edges[level])) < task.right).astype(float))
        alive = np.ones(shape)
        for right in segments:
            whole = right.all(-1)
            alive *= whole.reshape(whole.shape + (1,) * (alive.ndim - whole.ndim))
        values = [alive]
        for _ in self.branch_factors:
            values.insert(0, values[0].mean(-1))
        return edges, segments, values


def _mean(values: Sequence[Array], level: int) -> Array:
    return values[level + 1] - values[level][..., None]


def _leave_one_out(values: Sequence[Array], level: int) -> Array:
    branches = values[level + 1].shape[-1]
    return _mean(values, level) * branches / (branches - 1)


def _std(values: Sequence[Array], level: int) -> Array:
    return _mean(values, level) / (values[level + 1].std(-1, keepdims=True) + STD_EPSILON)


def _global_local(values: Sequence[Array], level: int) -> Array:
    root = values[0].reshape(values[0].shape + (1,) * (level + 1))
    return values[level + 1] - root + _mean(values, level)


#: `recipe.spo.credit`'s rules on arrays: values by depth and a level in, advantages of the level's segments out.
RULES = {"mean": _mean, "leave_one_out": _leave_one_out, "std": _std, "global_local": _global_local}


@dataclass(frozen=True, slots=True)
class Chain:
    """Responses that are cut every so many steps, each distinct cut continued `continuations` times."""

    responses: int
    continuations: int
    every: int

    @property
    def title(self) -> str:
        return f"chain of {self.responses}, K = {self.continuations}, cut every {self.every}"

    def draw(self, task: Task, questions: int, random: np.random.Generator) -> tuple[int, Array]:
        """See `Tree.draw`. The prompt is one cut that all responses share."""
        right = random.random((questions, self.responses, task.steps)) < task.right
        alive = np.cumprod(right, -1)
        cuts, k = [*range(0, task.steps, self.every)], self.continuations
        values, tokens = [], self.responses * task.steps * TOKENS
        for cut in cuts:
            states = self.responses if cut else 1
            worth = random.binomial(k, task.right ** (task.steps - cut), (questions, states)) / k
            values.append(worth * alive[..., cut - 1] if cut else np.repeat(worth, self.responses, 1))
            tokens += states * k * (task.steps - cut) * TOKENS
        values.append(alive[..., -1].astype(float))
        gradient = np.zeros((questions, task.steps))
        for number, (first, last) in enumerate(zip(cuts, [*cuts[1:], task.steps], strict=True)):
            credit = values[number + 1] - values[number]
            gradient[:, first:last] = (credit[..., None] * (right[..., first:last] - task.right)).sum(1)
        return tokens, gradient


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
    *(Chain(*shape) for shape in ((4, 3, 1), (4, 3, 3), (8, 1, 3), (8, 9, 3))),
)


@dataclass(frozen=True, slots=True)
class Need:
    """Generated tokens after which signal and noise of an update are level, and their standard errors.

    Attributes:
        own: each step a skill of its own.
        shared: one skill for all steps.
        cosine: between the mean gradient and the true one.
    """

    tokens: int
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
    tokens = parts[0][0]
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


def figures(gradients: Array, truth: Array, tokens: int) -> tuple[float, float]:
    """c tr C / (m . t)^2, each step a skill of its own, and one skill for all.

    Args:
        gradients: of questions, shape (questions, steps).
        truth: the true gradient, shape (steps,).
        tokens: c, generated for a question.
    """
    mean, direction = gradients.mean(0), truth / np.linalg.norm(truth)
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
        cells = [method.title, f"{found.tokens:,}"]
        cells += [f"{found.own / first.own:.2f} ± {found.own_error / first.own:.2f}"]
        cells += [f"{found.shared / first.shared:.2f} ± {found.shared_error / first.shared:.2f}", f"{found.cosine:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them where `--markdown` says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.markov_noise",
        description="How many generated tokens each method needs for an update as exact as that of a group of 12, on a "
        "task with exactly known values. Seconds; numpy alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--right", type=float, nargs="+", default=[0.75, 0.85, 0.95], metavar="P", help="probability of a right step"
    )
    parser.add_argument("--steps", type=int, default=9, metavar="N", help="of an answer; 9 or more")
    parser.add_argument("--questions", type=int, default=20_000, metavar="N", help="drawn for each method")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args(arguments)
    if any(not 0 < right < 1 for right in options.right):
        parser.error("--right must be above 0 and below 1")
    if options.steps < 9:
        parser.error("--steps must be at least 9: trees are cut after up to 7")
    if options.questions < 2 * PARTS:
        parser.error(f"--questions must be at least {2 * PARTS}")
    parts = []
    for right in options.right:
        title = f"**{right:g} of the steps right, {right**options.steps:.1%} of the answers**"
        rows = table(Task(options.steps, right), METHODS, options.questions, options.seed)
        parts.append(f"{title} (relative to the first line; less is better)\n\n{rows}")
        print(parts[-1] + "\n", flush=True)
    if options.markdown is not None:
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
