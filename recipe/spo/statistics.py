"""The numbers of an evaluation: mean@n, pass@k, maj@k, their errors, and the comparison of two results.

Pure. A result is a matrix with a row a question and a column a sample. The questions, not the
samples, are what is drawn at random: every standard error is clustered by question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Two-sided 95 %.
LEVEL = 0.95
_Z = 1.959963984540054
#: maj@k looks at every choice of k of the n samples, or at this many drawn ones where there are more.
MAX_SUBSETS = 512
RESAMPLES = 10_000
_BLOCK = 2_000_000  # numbers that a block of bootstrap resamples may hold


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions.

    Attributes:
        value: the mean.
        standard_error: clustered by question; nan for a single question.
        low: lower end of the 95 % confidence interval.
        high: upper end.
    """

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The second result minus the first, over the questions that both answered.

    Attributes:
        value: mean difference.
        standard_error: of the paired differences, sd / sqrt(Q); nan for a single question.
        low: lower end of the 95 % percentile interval of the bootstrap; nan for a single question.
        high: upper end.
        p_value: two-sided, of the hypothesis that there is no difference; not below what so few questions can show.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float


def question_means(scores: ArrayLike) -> Floats:
    """The mean score of each question.

    Args:
        scores: a row a question, a column a sample.

    Raises:
        ValueError: there is no question or no sample.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores must be questions x samples, not of shape {matrix.shape}")
    return matrix.mean(axis=1)


def clustered_standard_error(per_question: ArrayLike) -> float:
    """Standard error of a mean over questions: sd(m_1..m_Q) / sqrt(Q), sd with Q - 1.

    With m_q the mean of a question's samples this is the clustered standard error for clusters of
    equal size: samples of one question are alike, and counting them as independent would make the
    error up to sqrt(n) too small. nan for a single question.
    """
    means = np.asarray(per_question, dtype=np.float64)
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan


def share_estimate(per_question: ArrayLike, samples: int = 1) -> Estimate:
    """A mean of numbers between 0 and 1, with Wilson's interval for the effective number of answers.

    n_eff = p (1 - p) / se^2 independent answers would have the same standard error, and Wilson's
    interval is taken for that many: (p + z^2/2n ± z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    Unlike p ± z se it stays within [0, 1], and at p = 0 or 1, where se is 0 and says nothing, it
    is that of Q answers.

    Args:
        per_question: a number a question, each a mean of its samples.
        samples: samples a question; n_eff is at most Q times this.
    """
    means = np.asarray(per_question, dtype=np.float64)
    count, p, error = len(means), float(means.mean()), clustered_standard_error(means)
    spread = p * (1 - p)
    if count < 2 or spread <= 1e-12:
        effective = float(count)
    else:
        effective = min(spread / error**2, count * samples) if error > 0 else float(count * samples)
    z2 = _Z**2 / effective
    centre, half = p + z2 / 2, math.sqrt(max(spread, 0.0) / effective + z2**2 / (4 * _Z**2)) * _Z
    low, high = (centre - half) / (1 + z2), (centre + half) / (1 + z2)
    return Estimate(p, error, min(max(low, 0.0), p), max(min(high, 1.0), p))


def mean_estimate(per_question: ArrayLike) -> Estimate:
    """A mean of any numbers, such as lengths, with the normal interval, value ± 1.96 se."""
    means = np.asarray(per_question, dtype=np.float64)
    value, error = float(means.mean()), clustered_standard_error(means)
    return Estimate(value, error, value - _Z * error, value + _Z * error)


def mean_at_n(scores: ArrayLike) -> Estimate:
    """mean@n: the mean over questions of the mean over a question's n samples."""
    means = question_means(scores)
    return share_estimate(means, np.shape(scores)[1])


def pass_at_k(correct: ArrayLike, k: int) -> Floats:
    """pass@k of each question: the probability that k of its n samples hold a correct one.

    1 - C(n-c, k) / C(n, k) for c correct samples, unbiased (Chen et al. 2021, arXiv 2107.03374),
    as the product of (n-c-i) / (n-i) over i < k, so that no binomial coefficient is ever formed.

    Args:
        correct: questions x samples, non-zero where correct.
        k: samples drawn without replacement.

    Raises:
        ValueError: k is not between 1 and n.
    """
    matrix = np.asarray(correct) != 0
    n = matrix.shape[1]
    _check_k(k, n)
    wrong = (n - matrix.sum(axis=1)).astype(np.float64)
    steps = np.arange(k)
    return 1.0 - np.prod(np.clip(wrong[:, None] - steps, 0, None) / (n - steps), axis=1)


def majority_at_k(votes: Sequence[Sequence[str]], correct: ArrayLike, k: int, seed: int = 0) -> Floats:
    """maj@k of each question: how often the most frequent answer of k samples is correct.

    An empty vote does not count; with none at all the question earns 0. Answers that tie share: of
    two with the most votes, one correct, the question earns 1/2. For k < n it is the mean over all
    choices of k of the n samples, or over `MAX_SUBSETS` drawn ones where there are more.

    Args:
        votes: questions x samples, the answers in a form in which equal ones are equal strings.
        correct: questions x samples, non-zero where correct.
        k: samples that vote.
        seed: of the drawn choices.

    Raises:
        ValueError: k is not between 1 and n.
    """
    matrix = np.asarray(correct, dtype=np.float64)
    subsets = _subsets(matrix.shape[1], k, seed)
    return np.array([_majority(answers, row, subsets) for answers, row in zip(votes, matrix, strict=True)])


def _majority(answers: Sequence[str], correct: Floats, subsets: NDArray[np.int64]) -> float:
    names = sorted({answer for answer in answers if answer})
    if not names:
        return 0.0
    is_answer = np.array([[answer == name for answer in answers] for name in names], dtype=np.float64)
    worth = is_answer @ correct / is_answer.sum(axis=1)  # a grader may call equal answers different: their mean
    counts = is_answer[:, subsets].sum(axis=2)  # answers x choices
    most = counts.max(axis=0)
    winners = (counts == most) & (most > 0)
    return float((worth @ winners / np.maximum(winners.sum(axis=0), 1)).mean())


def _subsets(n: int, k: int, seed: int) -> NDArray[np.int64]:
    _check_k(k, n)
    if math.comb(n, k) <= MAX_SUBSETS:
        return np.array(list(combinations(range(n), k)))
    random = np.random.default_rng([seed, n, k])
    return np.argsort(random.random((MAX_SUBSETS, n)), axis=1)[:, :k]


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} must be between 1 and the {n} samples a question")


def bootstrap_means(per_question: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means over questions drawn with replacement, one a resample."""
    values = np.asarray(per_question, dtype=np.float64)
    random, count = np.random.default_rng(seed), len(values)
    block = max(1, _BLOCK // count)
    parts = [
        values[random.integers(count, size=(min(block, resamples - begin), count))].mean(axis=1)
        for begin in range(0, resamples, block)
    ]
    return np.concatenate(parts)


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Difference, Floats]:
    """Compares two results question by question.

    With d_q the second's mean minus the first's at question q, questions are drawn with
    replacement. The interval holds the middle 95 % of the means d*; the p-value is the share of
    resamples, of the differences shifted to mean 0, that are as far from 0 as the mean that was
    seen: (1 + #{|d* - d| >= |d|}) / (1 + resamples). Where few questions differ, the resamples say
    too much: of three that all went from wrong to right, each is the same. So the p-value is at least
    2^(1 - m) for m questions that differ, which is the least that flipping their signs can give.

    Args:
        first: a number a question.
        second: the same questions, in the same order.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        The difference, and the resampled means.

    Raises:
        ValueError: the two are of different length, or empty.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two results of the same questions are needed, not of shapes {a.shape} and {b.shape}")
    differences = b - a
    value = float(differences.mean())
    drawn = bootstrap_means(differences, resamples, seed)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    far = np.abs(drawn - value) >= abs(value) - 1e-12
    least = 2.0 ** (1 - np.count_nonzero(differences))
    p_value = min(1.0, max((1 + int(far.sum())) / (1 + resamples), least))
    if len(differences) == 1:
        low = high = math.nan
    return Difference(value, clustered_standard_error(differences), float(low), float(high), p_value), drawn
