"""95 % intervals of numbers that are functions of sums over questions.

Bootstrap-t, clustered by question. With T the number and s its jackknife error, questions are drawn with replacement;
each resample gives t* = (T* - T) / s*, s* being the jackknife error within the resample, and

    low = T - t*(97.5 %) s        high = T - t*(2.5 %) s        s^2 = (Q - 1)/Q  sum over q of (T_(q) - mean T_(q))^2

T_(q) being the number without question q. Of the mean of 16 numbers as skewed as e^1.5 (e exponential) such intervals
hold the truth in 94 % of cases, percentile intervals in 86 %; of 40 numbers in 95 % and 90 %.

A resample whose number is not defined counts against both ends: it may have been as low or as high as can be. There is
no interval where more than 2.5 % are not defined, or where the number is of fewer than 5 questions. An end may lie
beyond what the number can be.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipe.spo.statistics import LEVEL

Floats = NDArray[np.float64]
#: From sums, shape (..., columns), to a number, shape (...).
Statistic = Callable[[Floats], Floats]

#: Questions that a number must be of to have an interval.
LEAST_QUESTIONS = 5
#: Numbers that a block of resamples may hold.
_BLOCK = 4_000_000
#: 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval; nan where it, or an end, is not defined."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """For JSON, which has no nan."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}


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
    value = float(statistic(per_question.sum(axis=0)))
    error = float(_jackknife_error(per_question, statistic, np.ones((1, len(per_question))))[0])
    informed = np.count_nonzero(per_question.any(axis=1))
    if not np.isfinite(value) or not np.isfinite(error) or informed < LEAST_QUESTIONS:
        return Interval(value, np.nan, np.nan)
    block = max(1, _BLOCK // per_question.size)
    parts = [drawn[begin : begin + block] for begin in range(0, len(drawn), block)]
    off = np.concatenate([statistic(part @ per_question) for part in parts]) - value
    errors = np.concatenate([_jackknife_error(per_question, statistic, part) for part in parts])
    nothing = 1e-9 * (abs(value) + error)  # what sums leave behind where all that is left out changes nothing
    off, errors = (np.where(np.abs(part) < nothing, 0.0, part) for part in (off, errors))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where((errors == 0) & (off == 0), 0.0, off / errors)
    # "higher" and "lower" rather than a mean of neighbours, of which one may be infinite
    most = np.quantile(np.where(np.isnan(ratios), np.inf, ratios), (1 + LEVEL) / 2, method="higher")
    least = np.quantile(np.where(np.isnan(ratios), -np.inf, ratios), (1 - LEVEL) / 2, method="lower")
    if not np.isfinite([most, least]).all():
        return Interval(value, np.nan, np.nan)
    return Interval(value, value - most * error, value - least * error)


def student(value: float, error: float, questions: int) -> Interval:
    """Value ± t s, t of `questions` - 1 degrees of freedom."""
    half = _T[min(questions - 1, len(_T)) - 1] * error
    return Interval(value, value - half, value + half)


def _jackknife_error(per_question: Floats, statistic: Statistic, drawn: Floats) -> Floats:
    """Delete-one error of the statistic in each resample; nan where one deletion leaves it undefined."""
    sums, count = drawn @ per_question, drawn.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = statistic(sums[:, None, :] - per_question)
    without = np.where(drawn > 0, without, 0.0)  # a question that is not there is not left out
    mean = (drawn * without).sum(axis=1) / count
    spread = (drawn * (without - mean[:, None]) ** 2).sum(axis=1)
    return np.sqrt((count - 1) / count * spread)
