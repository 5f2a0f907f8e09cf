"""The ground truth: values of the states along responses of the policy, from many fresh continuations.

With rewards R_1 .. R_K of K fresh continuations of a state, V = mean R_k, and its squared standard error is the
unbiased s^2 / K with s^2 = sum (R_k - V)^2 / (K - 1). Where a response has ended, V is its reward, exactly.

Not every state is sampled. With rewards in [0, 1] and p the probability of the tokens from state a to state b,
V(a) = p V(b) + (1 - p) V(elsewhere), hence |V(a) - V(b)| <= 1 - p. A state takes the value of the last sampled one
as long as that bound is at most the tolerance: nothing was decided between the two. Tolerance 0 samples every state.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.spo.bench.problem import Problem
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.tree import Node


@dataclass(frozen=True, slots=True)
class Reference:
    """A response with the true values of its n + 1 states, the last one being its end.

    Attributes:
        node: the response, with its reward.
        sampled: the states (tokens before them) that were continued, from 0, increasing.
        values: V of each of these.
        errors: squared standard error of each.
        continuations: K.
    """

    node: Node
    sampled: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    continuations: int

    @property
    def tokens(self) -> int:
        return len(self.node.token_ids)

    def index(self, state: int) -> int:
        """Which of the sampled states stands for a state."""
        return bisect_right(self.sampled, state) - 1

    def value(self, state: int) -> tuple[float, float]:
        """V of a state in 0 .. n, and its squared standard error (0 at the end)."""
        if state == self.tokens:
            return float(self.node.reward), 0.0
        index = self.index(state)
        return self.values[index], self.errors[index]

    def variance(self, state: int) -> float:
        """Unbiased variance of the rewards of a state's continuations, state in 0 .. n (0 at the end)."""
        return self.value(state)[1] * self.continuations

    def advantage(self, begin: int, end: int) -> tuple[float, float]:
        """V(end) - V(begin), and its squared standard error: 0 for both if one sample stands for both."""
        if end < self.tokens and self.index(begin) == self.index(end):
            return 0.0, 0.0
        (before, noise), (after, more) = self.value(begin), self.value(end)
        return after - before, noise + more

    def as_json(self) -> dict[str, Any]:
        """For `from_json`, which gives back the same numbers."""
        node = self.node
        return {
            "token_ids": node.token_ids,
            "log_probs": node.log_probs,
            "finished": node.finished,
            "reward": node.reward,
            "sampled": list(self.sampled),
            "values": list(self.values),
            "errors": list(self.errors),
            "continuations": self.continuations,
        }

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Reference:
        """The reference that `as_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        node = Node(found["token_ids"], found["log_probs"], found["finished"], reward=found["reward"])
        sampled, values, errors = (tuple(found[name]) for name in ("sampled", "values", "errors"))
        n = len(node.token_ids)
        good = 0 < n == len(node.log_probs) and len(sampled) == len(values) == len(errors)
        good = good and sampled[:1] == (0,) and list(sampled) == sorted(set(sampled)) and sampled[-1] < n
        if not good or not all(map(math.isfinite, (*node.log_probs, node.reward, *values, *errors))):
            raise ValueError("a reference whose tokens, states and values do not fit together")
        return Reference(node, sampled, values, errors, found["continuations"])


def sampled_states(log_probs: Sequence[float], tolerance: float) -> tuple[int, ...]:
    """The states of a response that need continuations of their own, see the module; 0 is always one.

    Args:
        log_probs: of the response's tokens.
        tolerance: most by which a value may be off, in [0, 1).
    """
    states, decided = [0], 0.0
    for state, log_prob in enumerate(log_probs[:-1], 1):
        decided += log_prob
        if 1 - math.exp(decided) > tolerance or not tolerance:
            states.append(state)
            decided = 0.0
    return tuple(states)


async def sample_truth(
    sampler: Sampler, problem: Problem, responses: int, continuations: int, tolerance: float
) -> list[Reference]:
    """Sample a question's references, and continue their states; equal states are continued once.

    Args:
        sampler: where tokens come from.
        problem: the question.
        responses: references.
        continuations: K, at least 2.
        tolerance: see the module.
    """
    prompt = problem.prompt_ids
    nodes = await asyncio.gather(*(sampler.sample(prompt, problem.budget, (i,)) for i in range(responses)))
    for node in nodes:
        node.reward = problem.grade(node.token_ids) if node.finished else 0.0
    states = [sampled_states(node.log_probs, tolerance) for node in nodes]
    wanted = {tuple(node.token_ids[:c]): None for node, own in zip(nodes, states, strict=True) for c in own}

    async def continued(state: tuple[int, ...]) -> tuple[float, float]:
        context, left = (*prompt, *state), problem.budget - len(state)
        drawn = await asyncio.gather(*(sampler.sample(context, left, (len(state), k)) for k in range(continuations)))
        rewards = np.array([problem.grade([*state, *node.token_ids]) if node.finished else 0.0 for node in drawn])
        return float(rewards.mean()), float(rewards.var(ddof=1) / continuations)

    found = dict(zip(wanted, await asyncio.gather(*map(continued, wanted)), strict=True))
    references = []
    for node, own in zip(nodes, states, strict=True):
        values, errors = zip(*(found[tuple(node.token_ids[:c])] for c in own), strict=True)
        references.append(Reference(node, own, values, errors, continuations))
    return references
