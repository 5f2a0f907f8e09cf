"""A task with exactly known values: what trees and chains draw from many questions of it at once, and their gradients.

The arithmetic task without its arithmetic: an answer has `steps` steps of `TOKENS` tokens, each right with the same
probability, whatever came before, and earns 1 where all of them are. V(state after k right steps) = p^(steps - k), 0
after a wrong one, and the gradient of the expected reward in the logit of a step is p^steps (1 - p). A question's
gradient is the sum over its trained steps of A (1[right] - p). In numpy's arrays, since `recipe.spo` makes an object a
node; `tests/unit/test_markov_noise.py` holds rollouts and advantages against its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipe.spo.credit import STD_EPSILON

Array = NDArray[np.float64]

TOKENS = 7


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

    def draw(self, task: Task, questions: int, random: np.random.Generator) -> tuple[float, Array]:
        """Draw questions.

        Returns:
            Generated tokens a question, on average, and gradients, shape (questions, steps).
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


#: Rules of `recipe.spo.credit` on arrays, all but shrinkage: values by depth and a level in, advantages of the level's
#: segments out.
RULES = {"mean": _mean, "leave_one_out": _leave_one_out, "std": _std, "global_local": _global_local}


@dataclass(frozen=True, slots=True)
class Chain:
    """Responses that are cut every so many steps.

    Attributes:
        responses: a question.
        every: steps of a segment.
        continuations: K, of each distinct cut: those of right steps alone are the same text, and so one cut, and so is
            the prompt. None: exact values, for nothing; no method can know more.
    """

    responses: int
    every: int
    continuations: int | None

    @property
    def title(self) -> str:
        known = "exact values for nothing" if self.continuations is None else f"K = {self.continuations}"
        return f"chain of {self.responses}, cut every {self.every}, {known}"

    def draw(self, task: Task, questions: int, random: np.random.Generator) -> tuple[float, Array]:
        """See `Tree.draw`; a wrong step leads to a state of value 0, which is continued like the others."""
        right = random.random((questions, self.responses, task.steps)) < task.right
        alive = np.cumprod(right, -1)
        cuts, values = [*range(0, task.steps, self.every)], []
        tokens = float(self.responses * task.steps * TOKENS)
        for cut in cuts:
            here = alive[..., cut - 1] if cut else np.ones((questions, self.responses))
            worth: float | Array = task.right ** (task.steps - cut)
            if self.continuations is not None:
                worth = random.binomial(self.continuations, worth, (questions, 1)) / self.continuations
                distinct = (self.responses - here.sum(1) + here.any(1)).mean()
                tokens += distinct * self.continuations * (task.steps - cut) * TOKENS
            values.append(worth * here)
        values.append(alive[..., -1].astype(float))
        gradient = np.zeros((questions, task.steps))
        for number, (first, last) in enumerate(zip(cuts, [*cuts[1:], task.steps], strict=True)):
            credit = values[number + 1] - values[number]
            gradient[:, first:last] = (credit[..., None] * (right[..., first:last] - task.right)).sum(1)
        return tokens, gradient
