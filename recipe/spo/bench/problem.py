"""What the bench asks of its surroundings: questions, something that samples, something that gives gradients.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recipe.spo.advantage import Sample
from recipe.spo.rollout.sampler import LLMClient


@dataclass(frozen=True, slots=True)
class Problem:
    """A question.

    Attributes:
        id: its name in the results.
        prompt_ids: the prompt.
        budget: most tokens of a response.
        grade: reward in [0, 1] of a finished response's tokens; one that did not finish earns 0 unasked.
        digest: of what the reward depends on beside the response.
    """

    id: str
    prompt_ids: tuple[int, ...]
    budget: int
    grade: Callable[[Sequence[int]], float]
    digest: str = ""


class BenchClient(LLMClient, Protocol):
    """Samples segments, the same ones after the same `begin` and requests."""

    def begin(self, seed: int) -> None:
        """Forget what was sampled, and draw from here on as the seed says."""
        ...


class GradientModel(Protocol):
    """The policy, differentiable."""

    def gradients(
        self, prompt_ids: Sequence[int], samples: Sequence[Sample], weights: Sequence[Sequence[Sequence[float]]]
    ) -> np.ndarray:
        """Gradients of sums of weighted log-probabilities, or one linear projection of them.

        Args:
            prompt_ids: the prompt.
            samples: segments with their contexts.
            weights: for each gradient, a weight for each token of each sample.

        Returns:
            Shape (len(weights), dimension): d/dtheta of sum over tokens of weight * log pi(token | context).
        """
        ...
