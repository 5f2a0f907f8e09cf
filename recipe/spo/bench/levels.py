"""Numbers of methods, and of families at a budget, that can be compared question by question.

All methods are measured on the same questions. What one method's number is above another's is therefore a function of
the sums of both, and questions are drawn for both at once: a hard question in a resample is one for both. Whether two
intervals overlap says little about their difference.

A family at a budget lies between its two sizes around it: linear in log tokens, and in the log of an error where both
errors are above 0. Its place between them is taken from the mean tokens of all questions and held fixed in resamples,
so intervals leave out that these means would be a little different with other questions.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipe.spo.bench.intervals import Floats, Interval, Statistic, estimate


@dataclass(frozen=True, slots=True)
class Level:
    """A number as a function of sums over questions.

    Attributes:
        sums: of each question, shape (questions, columns).
        statistic: of the sums over questions.
    """

    sums: Floats
    statistic: Statistic

    @property
    def value(self) -> float:
        return float(self.statistic(self.sums.sum(axis=0)))

    def interval(self, drawn: Floats) -> Interval:
        """With its interval; see `intervals.estimate`."""
        return estimate(self.sums, self.statistic, drawn)


def at_budget(sizes: Sequence[Level], tokens: Sequence[float], budget: float, error: bool) -> Level | None:
    """A family's number at a budget.

    Args:
        sizes: the number at each size.
        tokens: mean tokens a question of each size, increasing.
        budget: in tokens a question.
        error: it is an error, so that logs are taken where they can be.

    Returns:
        The number; None beyond the smallest and the largest size.
    """
    if not tokens[0] <= budget <= tokens[-1]:
        return None
    upper = next(place for place, count in enumerate(tokens) if count >= budget)
    if tokens[upper] == budget:
        return sizes[upper]
    first, second = sizes[upper - 1], sizes[upper]
    share = float(np.log(budget / tokens[upper - 1]) / np.log(tokens[upper] / tokens[upper - 1]))
    logs, split = error and first.value > 0 and second.value > 0, first.sums.shape[1]

    def between(sums: Floats) -> Floats:
        low, high = first.statistic(sums[..., :split]), second.statistic(sums[..., split:])
        if not logs:
            return (1 - share) * low + share * high
        # an error below 0 in a resample counts as 0, to which the geometric mean tends as well
        return np.maximum(low, 0) ** (1 - share) * np.maximum(high, 0) ** share

    return Level(np.hstack([first.sums, second.sums]), between)


def difference(one: Level, other: Level) -> Level:
    """How much the first number is above the second, on the same questions."""
    split = one.sums.shape[1]
    return Level(
        np.hstack([one.sums, other.sums]),
        lambda sums: one.statistic(sums[..., :split]) - other.statistic(sums[..., split:]),
    )
