"""Several seeds of one method as one line with a band.

Each seed is a line through its validations. Where the seeds were validated at the same x (steps,
mostly), mean and spread are those of the measured points. Elsewhere (tokens and time differ between
seeds) every seed is interpolated linearly at every x at which some seed was validated: the mean of the
seeds' lines is then exact, no bins or grid spacing to choose. Nothing is extrapolated: the band covers
the x for which all seeds have data. Between its validations a seed's interpolated accuracy scatters
less than a measured one, so there the standard error is, if anything, too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Spread = Literal["se", "range"]
Points = Sequence[tuple[float, float]]


class BandError(ValueError):
    """Seeds cannot be averaged."""


@dataclass(frozen=True, slots=True)
class Band:
    """A method's line.

    Attributes:
        x: where the line has points, ascending.
        mean: mean over seeds at each x.
        low: lower edge of the band at each x, or nothing where there is no band.
        high: upper edge, likewise.
        seeds: how many runs were averaged.
        meaning: what the band is, in words for a legend; empty where there is none.
        measured: every seed was validated at every x; otherwise some points are interpolated.
        cut: points of longer seeds that were left out, as not all seeds reach them.
    """

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    meaning: str
    measured: bool = True
    cut: int = 0


def standard_error(accuracy: float, size: int) -> float:
    """Binomial standard error of an accuracy over `size` problems, one answer each."""
    return (accuracy * (1 - accuracy) / size) ** 0.5 if size else 0.0


def average(seeds: Sequence[Points], spread: Spread = "se", validation_size: int = 0) -> Band:
    """Average seeds.

    With n seeds of accuracies y_1 .. y_n at an x, mean m:

        se:     m +- sqrt(sum (y_i - m)^2 / (n - 1)) / sqrt(n)
        range:  min y_i .. max y_i

    With one seed: m +- sqrt(m (1 - m) / validation_size), or no band where the size is not known.

    Args:
        seeds: each seed's points (x, accuracy), x ascending.
        spread: what the band is.
        validation_size: problems behind each accuracy, used for a single seed.

    Returns:
        The mean line and its band.

    Raises:
        BandError: there is no seed, a seed has no point, or no x at which all seeds have data.
    """
    if not seeds or not all(seeds):
        raise BandError("a seed without any point")
    if len(seeds) == 1:
        return _one_seed(seeds[0], validation_size)
    first, last = max(points[0][0] for points in seeds), min(points[-1][0] for points in seeds)
    if first > last:
        raise BandError(f"the seeds have no x in common: one begins at {first:g}, another ends at {last:g}")
    grid = sorted({x for points in seeds for x, _ in points if first <= x <= last})
    values = np.array([np.interp(grid, *zip(*points, strict=True)) for points in seeds])
    mean = values.mean(axis=0)
    if spread == "se":
        error = values.std(axis=0, ddof=1) / len(seeds) ** 0.5
        low, high, meaning = mean - error, mean + error, "± standard error over seeds"
    else:
        low, high, meaning = values.min(axis=0), values.max(axis=0), "lowest to highest seed"
    measured = all({x for x, _ in points} >= set(grid) for points in seeds)
    cut = sum(not first <= x <= last for points in seeds for x, _ in points)
    return Band(grid, mean.tolist(), low.tolist(), high.tolist(), len(seeds), meaning, measured, cut)


def _one_seed(points: Points, validation_size: int) -> Band:
    x, mean = [x for x, _ in points], [y for _, y in points]
    if not validation_size:
        return Band(x, mean, [], [], 1, "")
    errors = [standard_error(y, validation_size) for y in mean]
    low = [y - error for y, error in zip(mean, errors, strict=True)]
    high = [y + error for y, error in zip(mean, errors, strict=True)]
    return Band(x, mean, low, high, 1, f"one seed: ± binomial standard error ({validation_size} problems)")
