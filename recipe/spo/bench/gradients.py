"""The policy gradient that a method's credit makes: its noise at equal tokens, and its direction.

A rollout of question q gives g_q = sum over its samples' tokens of A m grad log pi. Training adds that up over a batch
and divides by the number of trained tokens. A budget of B tokens pays for B / c questions, c being the tokens of a
rollout; with k trained tokens a question (those below the mask's threshold whose advantage is not 0) the update g has

    mean mu / k    variance (trace of the covariance) v c / (B k^2),    mu = E g_q,    v = E |g_q - mu|^2

Questions are independent, so products of *different* questions estimate products of means without bias:

    |mu|^2 = mean over q != r of g_q . g_r          v = mean |g_q|^2 - |mu|^2
    signal to noise at B: r = |mu|^2 B / (v c)
    cosine of the mean to the truth = mu . t / (|mu| |t|)
    cosine at B = mu . t / (|t| sqrt(|mu|^2 + v c / B))     what an update from B tokens can expect, up to O(1/B)
    agreement at B = |mu|^2 / (|mu|^2 + v c / B) = r / (1 + r)     the same between two updates from B tokens each

The estimate of |mu|^2 may come out below 0; in a sum with v c / B it then counts as 0, so that agreement is r: as far
below 0 as noise takes it. For the same reason cosines, which lie in [-1, 1], may be estimated beyond 1.

With few questions |t|^2 can hardly be told from 0, and what is divided by it has an interval only where it can. The
cosine at B to the *measured* mean of t divides by sqrt(|t|^2 + v_t / Q) instead: too small, by a factor that is the
same for all methods. t is the mean gradient from ground-truth advantages of single tokens on the references, all
trained.

Intervals are value ± t s, with Student's t of Q - 1 degrees of freedom. Where there is hardly a signal, |mu|^2 is a
degenerate U-statistic, of which a bootstrap of questions has 3 times the variance, and the jackknife twice. So s^2 is
the jackknife's less what it counts twice (Efron and Stein 1981). With T_(q), T_(qr) the number without q, without q, r:

    s^2 = (Q-1)/Q sum (T_(q) - mean T_(q))^2  -  (Q-3) / (Q (Q-1) (Q-2)) sum over q < r of D_qr^2
    D_qr = Q T - (Q-1) (T_(q) + T_(r)) + (Q-2) T_(qr)

which is unbiased for any U-statistic of pairs, with or without signal. It is at least (Q-2) / (2 (Q-1)) of the first
term, what remains when there is no signal at all. Agreement and noise to signal have the interval of r, put through
their formulas. In simulations with 16 questions intervals of |mu|^2 and agreement hold the truth in 87 to 95 % of
cases, those of the cosine to the measured truth in 80 % where the signal is weak.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from recipe.spo.bench.intervals import Floats, Interval, student


@dataclass(frozen=True, slots=True)
class GradientView:
    """What the gradient of a method is like.

    Attributes:
        tokens: c, mean generated tokens of a question.
        signal: |mu|^2; below 0 where it cannot be told from none.
        variance: v.
        step_variance: v c / (B k^2), of the mean gradient of a trained token, from so many generated ones.
        noise_to_signal: at the budget; without an upper end where there may be no signal, and with a lower end alone
            where none was found.
        direction: cosine of the mean to the truth.
        cosine: to the truth, at the budget.
        agreement: of two updates, at the budget.
        measured_cosine: to the truth as it was measured, at the budget.
    """

    tokens: float
    signal: Interval
    variance: Interval
    step_variance: Interval
    noise_to_signal: Interval
    direction: Interval
    cosine: Interval
    agreement: Interval
    measured_cosine: Interval


NUMBERS = tuple(field.name for field in fields(GradientView) if field.name != "tokens")


def view(gradients: Floats, truth: Floats, tokens: Floats, trained: Floats, budget: float) -> GradientView:
    """Measure a method.

    Args:
        gradients: g_q, shape (questions, dimension).
        truth: the same questions' gradients from ground-truth advantages, same shape.
        tokens: generated for each g_q.
        trained: trained tokens of each.
        budget: B.

    Raises:
        ValueError: fewer than 2 questions.
    """
    questions = len(gradients)
    if questions < 2:
        raise ValueError("a gradient's noise needs at least 2 questions")
    kept = _kept(questions)
    own = _pair_means(gradients @ gradients.T, kept)
    cross = _pair_means(gradients @ truth.T, kept)
    true = _pair_means(truth @ truth.T, kept)
    count = kept.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cost = kept @ tokens / count
        variance = kept @ (gradients**2).sum(axis=1) / count - own
        noise = variance * cost / budget
        step_variance = noise / (kept @ trained / count) ** 2
        length = np.sqrt(np.where(true > 0, true, np.nan))
        direction = cross / (np.sqrt(np.where(own > 0, own, np.nan)) * length)
        total = np.maximum(own, 0) + noise
        cosine = cross / (np.sqrt(total) * length)
        measured = true + (kept @ (truth**2).sum(axis=1) / count - true) / questions
        measured_cosine = cross / np.sqrt(total * measured)
        ratio = jackknife(own / noise, questions)
    signal, true_signal = jackknife(own, questions), jackknife(true, questions)
    by_truth = jackknife(cosine, questions) if true_signal.low > 0 else _bare(cosine)
    of_mean = jackknife(direction, questions) if min(true_signal.low, signal.low) > 0 else _bare(direction)
    return GradientView(
        float(cost[0]),
        signal,
        jackknife(variance, questions),
        jackknife(step_variance, questions),
        _inverse(ratio),
        of_mean,
        by_truth,
        Interval(*(number / (1 + max(number, 0.0)) for number in (ratio.value, ratio.low, ratio.high))),
        jackknife(measured_cosine, questions),
    )


def jackknife(numbers: Floats, questions: int) -> Interval:
    """A number with its interval, see the module; none if one deletion leaves it undefined, or below 4 questions.

    Args:
        numbers: of all questions, without each, without each pair, as `_kept` lists them.
        questions: Q.
    """
    value, q = float(numbers[0]), questions
    if q < 4 or not np.isfinite(numbers).all():
        return _bare(numbers)
    without, pairs = numbers[1 : q + 1], numbers[q + 1 :]
    first, second = np.triu_indices(q, 1)
    spread = (q - 1) / q * ((without - without.mean()) ** 2).sum()
    twice = q * value - (q - 1) * (without[first] + without[second]) + (q - 2) * pairs
    square = spread - (q - 3) / (q * (q - 1) * (q - 2)) * (twice**2).sum()
    return student(value, float(np.sqrt(max(square, spread * (q - 2) / (2 * (q - 1))))), q)


def _bare(numbers: Floats) -> Interval:
    return Interval(float(numbers[0]), np.nan, np.nan)


def _inverse(ratio: Interval) -> Interval:
    """1 / r: what is not above 0 has no inverse, and no bound follows from it."""
    value, high, low = (1 / number if number > 0 else np.nan for number in (ratio.value, ratio.low, ratio.high))
    return Interval(value, low, high)


def _kept(questions: int) -> Floats:
    """Which questions are there: all, all but each, all but each pair q < r; a row each."""
    first, second = np.triu_indices(questions, 1)
    alone = np.ones((questions, questions)) - np.eye(questions)
    return np.vstack([np.ones((1, questions)), alone, alone[first] * alone[second]])


def _pair_means(products: Floats, kept: Floats) -> Floats:
    """Mean of products over pairs of different questions, for each row of what is kept."""
    above = np.einsum("sq,sq->s", kept @ products, kept) - kept @ np.diag(products)
    below = kept.sum(axis=1) * (kept.sum(axis=1) - 1)
    return above / np.where(below > 0, below, np.nan)
