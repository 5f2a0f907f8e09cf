"""How accurate values and advantages are, from sums over a question's states.

With X the method's number, T the measured truth and e^2 its squared standard error, and sums over states of all
questions, where the continuations behind T are independent of the method's rollout:

    mean squared error   sum((X - T)^2 - e^2) / n                    e^2 is the part of it that is the truth's own noise
    bias                 sum(X - T) / n
    correlation          cov(X, T) / sqrt(var X (var T - mean e^2))  noise of T leaves cov alone and adds to var T
    worth                sum V (1 - V) / sum((X - T)^2 - e^2)        the mean of K fresh continuations has the error
                                                                     V (1 - V) / K, so X is as accurate as that mean
                                                                     with K = worth; V (1 - V) is the unbiased
                                                                     variance of the rewards
    rank accuracy        pairs of siblings in the right order / pairs, a tie counting 1/2

All are functions of sums over questions, which `intervals` draws again.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipe.spo.bench.intervals import Floats


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
