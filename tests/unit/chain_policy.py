"""A policy that is a small Markov chain, as the bench's client, with its exact values and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from recipe.spo.advantage import Sample
from recipe.spo.bench.problem import Problem
from tests.unit.test_markov import EOS, LENGTH, POLICY, PROMPT, Policy, reward, worth

TOKENS = sorted({token for row in POLICY.values() for token in row})


def problems(number: int) -> list[Problem]:
    """So many questions, all alike."""
    return [Problem(f"question {i}", (PROMPT,), LENGTH, lambda ids: reward(tuple(ids))) for i in range(number)]


def true_value(response_ids: Sequence[int]) -> float:
    """Exact value of the state after some response tokens."""
    ids = tuple(response_ids)
    if EOS in ids:
        return reward(ids)
    return worth((PROMPT, *ids)[-1], LENGTH - len(ids))


class ChainClient(Policy):
    """The chain's policy, which can begin anew."""

    def __init__(self) -> None:
        super().__init__(0)
        self.calls = 0

    def begin(self, seed: int) -> None:
        self.random.seed(seed)

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        self.calls += 1
        return await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)


class ChainGradient:
    """Logits are a table, a row a last token: d log p(b | a) / d logit(a, c) = [b = c] - p(c | a)."""

    def gradients(
        self, prompt_ids: Sequence[int], samples: Sequence[Sample], weights: Sequence[Sequence[Sequence[float]]]
    ) -> np.ndarray:
        rows = {last: place for place, last in enumerate(POLICY)}
        found = np.zeros((len(weights), len(rows), len(TOKENS)))
        for number, column in enumerate(weights):
            for sample, values in zip(samples, column, strict=True):
                last = (*prompt_ids, *sample.prefix_ids)[-1]
                for token, weight in zip(sample.token_ids, values, strict=True):
                    for other, chance in POLICY[last].items():
                        found[number, rows[last], TOKENS.index(other)] += weight * ((other == token) - chance)
                    last = token
        return found.reshape(len(weights), -1)


def exact_gradient() -> np.ndarray:
    """d V(prompt) / d logits: the sum over states of how often they are met, times p(b | a) A(a, b)."""
    found = np.zeros((len(POLICY), len(TOKENS)))
    met = {PROMPT: 1.0}
    for left in range(LENGTH, 0, -1):
        after: dict[int, float] = {}
        for last, chance in met.items():
            for token, p in POLICY[last].items():
                value = reward((last, EOS)) if token == EOS else worth(token, left - 1)
                found[list(POLICY).index(last), TOKENS.index(token)] += chance * p * (value - worth(last, left))
                if token != EOS:
                    after[token] = after.get(token, 0.0) + chance * p
        met = after
    assert math.isfinite(found.sum())
    return found.ravel()
