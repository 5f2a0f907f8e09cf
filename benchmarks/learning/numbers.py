"""The statistics of the curves. Pure: points and lists of numbers in, numbers out.

A curve is points (x, y), x ascending, read as a line through them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]

#: 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class NumbersError(ValueError):
    """A curve does not have what is asked of it."""


def value_at(points: Points, x: float) -> float:
    """The line's height at x, linear between its points.

    Raises:
        NumbersError: the line begins after x, or ends before it.
    """
    if not points or not points[0][0] <= x <= points[-1][0]:
        raise NumbersError(f"no value at {x:g}: {_range(points)}")
    for (left, low), (right, high) in zip(points, points[1:], strict=False):
        if x <= right:
            return high if right == left else low + (high - low) * (x - left) / (right - left)
    return points[-1][1]


def area(points: Points, end: float) -> float:
    """Mean height of the line from 0 to `end`, which is the area under it divided by `end`.

    Raises:
        NumbersError: the line begins after 0, or ends before `end`.
    """
    if end <= 0:
        raise NumbersError(f"an area up to {end:g}")
    last = value_at(points, end)
    inner = [(x, y) for x, y in points if 0 < x < end]
    corners = [(0.0, value_at(points, 0.0)), *inner, (end, last)]
    return sum((b - a) * (ya + yb) / 2 for (a, ya), (b, yb) in zip(corners, corners[1:], strict=False)) / end


def _range(points: Points) -> str:
    return f"the curve goes from {points[0][0]:g} to {points[-1][0]:g}" if points else "the curve has no point"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: of them.
        error: its standard error; None: one value has none.
        n: how many values.
    """

    mean: float
    error: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval by Student's t; None where there is no standard error."""
        if self.error is None:
            return None
        half = t_quantile(self.n - 1) * self.error
        return self.mean - half, self.mean + half

    @property
    def beyond_two_errors(self) -> int | None:
        """1: more than two standard errors above 0; -1: below; 0: neither; None: there is no standard error."""
        if self.error is None:
            return None
        return (self.mean > 2 * self.error) - (self.mean < -2 * self.error)


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error, sample deviation / sqrt(n)."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def paired(ours: dict[int, float], theirs: dict[int, float]) -> Mean | None:
    """Mean difference over the seeds that both have; None where there is none.

    Args:
        ours: seed -> value.
        theirs: likewise.
    """
    common = sorted(ours.keys() & theirs.keys())
    return mean_of([ours[seed] - theirs[seed] for seed in common]) if common else None


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t; beyond 30 degrees of freedom that of 30, which is a little larger."""
    return _T[min(freedom, len(_T)) - 1]
