"""How accurate values and advantages are, from sums over a question's states.

With X the method's number, T the measured truth and e^2 its squared standard error, and sums over states of all
questions, where the continuations behind T are independent of the method's rollout:

    mean squared error   sum((X - T)^2 - e^2) / n                    e^2 is the part of it that is the truth's own noise
    bias                 sum(X - T) / n
    correlation          cov(X, T) / sqrt(var X (var T - mean e^2))  noise of T leaves cov alone and adds to var T
    worth                sum V (1 - V) / sum((X - T)^2 - e^2)        V (1 - V) by the unbiased variance of the rewards:
                                                                     as good as so many fresh continuations a state
    rank accuracy        pairs of siblings in the right order / pairs, a tie counting 1/2

All are functions of sums, so questions can be drawn again (`estimate`): the bootstrap is clustered by question.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipe.spo.statistics import LEVEL

Floats = NDArray[np.float64]
#: From sums, shape (..., columns), to a number, shape (...).
Statistic = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the middle 95 % of its bootstrap; nan where it is not defined."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """For JSON, which has no nan."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}


def moments(x: Sequence[float], truth: Sequence[float], noise: Sequence[float]) -> Floats:
    """The sums that the statistics below are made of: n, x, t, x^2, t^2 - e^2, x t, (x - t)^2 - e^2."""
    a, b, e = (np.asarray(part, dtype=np.float64) for part in (x, truth, noise))
    return np.array(
        [
            len(a),
            a.sum(),
            b.sum(),
            (a * a).sum(),
            (b * b - e).sum(),
            (a * b).sum(),
            ((a - b) ** 2 - e).sum(),
        ]
    )


def mean_squared_error(sums: Floats) -> Floats:
    """Corrected for the noise of the truth, so it may come out below 0 where the error is smaller than that."""
    return _divided(sums[..., 6], sums[..., 0])


def bias(sums: Floats) -> Floats:
    """Mean of x - t."""
    return _divided(sums[..., 1] - sums[..., 2], sums[..., 0])


def correlation(sums: Floats) -> Floats:
    """Pearson's, with the true quantity in place of its noisy measurement."""
    n, x, t, xx, tt, xt = (sums[..., i] for i in range(6))
    spread = (n * xx - x * x) * (n * tt - t * t)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12, (n * xt - x * t) / np.sqrt(np.maximum(spread, 1e-12)), np.nan)


def ratio(sums: Floats) -> Floats:
    """First column by second."""
    return _divided(sums[..., 0], sums[..., 1])


def _divided(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below != 0, above / below, np.nan)


def draws(questions: int, resamples: int, seed: int) -> Floats:
    """How often each question is drawn, with replacement: shape (resamples, questions)."""
    random = np.random.default_rng(seed)
    return random.multinomial(questions, np.full(questions, 1 / questions), size=resamples).astype(np.float64)


def estimate(per_question: Floats, statistic: Statistic, drawn: Floats) -> Interval:
    """A statistic of all questions, with its interval.

    Args:
        per_question: sums of each question, shape (questions, columns).
        statistic: of the sums over questions.
        drawn: see `draws`.
    """
    return interval(float(statistic(per_question.sum(axis=0))), statistic(drawn @ per_question))


def interval(value: float, resampled: Floats) -> Interval:
    """The middle 95 % of the resamples that are defined; nan if there are few of them."""
    usable = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(usable) < 0.8 * len(resampled):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def at_budget(tokens: Floats, values: Floats, budget: float) -> Floats:
    """A family's number at a budget, from its sizes: linear in log tokens, log error where all errors are positive.

    Args:
        tokens: mean tokens of each size, increasing, shape (..., sizes).
        values: the number at each size, same shape.
        budget: in tokens; nan beyond the smallest and the largest size.
    """
    tokens, values = np.atleast_2d(tokens), np.atleast_2d(values)
    found = np.full(len(values), np.nan)
    for row, (x, y) in enumerate(zip(np.broadcast_to(tokens, values.shape), values, strict=True)):
        if x[0] <= budget <= x[-1] and np.isfinite(y).all():
            positive = bool((y > 0).all())
            level = np.interp(np.log(budget), np.log(x), np.log(y) if positive else y)
            found[row] = np.exp(level) if positive else level
    return found
