"""The policy gradient that a method's credit makes: its noise at equal tokens, and its direction.

A rollout of question q gives g_q = sum over its samples' tokens of A m grad log pi: what training adds up before it
divides by the number of trained tokens of a batch, which is left out since only directions and relative noise are
compared. A budget of B tokens pays for B / c questions, c being the tokens of a rollout; the mean of their g has

    mean mu    variance (trace of the covariance) v c / B,    v = E |g_q - mu|^2

Questions are independent, so products of *different* questions estimate products of means without bias:

    |mu|^2 = mean over q != r of g_q . g_r          v = mean |g_q|^2 - |mu|^2
    noise to signal at B = v c / (B |mu|^2)
    cosine of the mean to the truth = mu . t / (|mu| |t|)
    cosine at B = mu . t / (|t| sqrt(|mu|^2 + v c / B))     what an update from B tokens can expect, up to O(1/B)
    agreement at B = |mu|^2 / (|mu|^2 + v c / B)            the same between two updates from B tokens each

With few questions |t|^2 can hardly be told from 0, and what is divided by it has no interval. The cosine at B to the
*measured* mean of t divides by sqrt(|t|^2 + v_t / Q) instead: too small, by a factor that is the same for all methods.

t is the mean gradient from ground-truth advantages of single tokens on the references, all tokens trained.
Intervals: questions are drawn with replacement; a question is never multiplied with itself.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipe.spo.bench.accuracy import Floats, Interval, interval


@dataclass(frozen=True, slots=True)
class GradientView:
    """What the gradient of a method is like.

    Attributes:
        tokens: c, mean generated tokens of a question.
        signal: |mu|^2; below 0 where it cannot be told from none.
        variance: v.
        noise_to_signal: at the budget.
        direction: cosine of the mean to the truth.
        cosine: to the truth, at the budget.
        agreement: of two updates, at the budget.
        measured_cosine: to the truth as it was measured, at the budget.
    """

    tokens: float
    signal: Interval
    variance: Interval
    noise_to_signal: Interval
    direction: Interval
    cosine: Interval
    agreement: Interval
    measured_cosine: Interval


def view(gradients: Floats, truth: Floats, tokens: Floats, budget: float, drawn: Floats) -> GradientView:
    """Measure a method.

    Args:
        gradients: g_q, shape (questions, dimension).
        truth: the same questions' gradients from ground-truth advantages, same shape.
        tokens: generated for each g_q.
        budget: B.
        drawn: how often each question is drawn in each resample, see `accuracy.draws`.

    Raises:
        ValueError: fewer than 2 questions.
    """
    questions = len(gradients)
    if questions < 2:
        raise ValueError("a gradient's noise needs at least 2 questions")
    weights = np.vstack([np.ones(questions), drawn])
    own = _pair_means(gradients @ gradients.T, weights)
    cross = _pair_means(gradients @ truth.T, weights)
    true = _pair_means(truth @ truth.T, weights)
    count = weights.sum(axis=1)
    second = weights @ (gradients**2).sum(axis=1) / count
    cost = weights @ tokens / count
    variance = second - own
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(own > 0, variance * cost / (budget * own), np.nan)
        length = np.sqrt(np.where(true > 0, true, np.nan))
        direction = cross / (np.sqrt(np.where(own > 0, own, np.nan)) * length)
        cosine = cross / (np.sqrt(np.maximum(own, 0) + variance * cost / budget) * length)
        total = np.maximum(own, 0) + variance * cost / budget
        measured = true + (weights @ (truth**2).sum(axis=1) / count - true) / questions
        measured_cosine = cross / np.sqrt(total * measured)
        agreement = own / total
    columns = (own, variance, noise, direction, cosine, agreement, measured_cosine)
    return GradientView(float(cost[0]), *(interval(float(column[0]), column[1:]) for column in columns))


def _pair_means(products: Floats, weights: Floats) -> Floats:
    """Mean of products over pairs of different questions, for each row of weights."""
    squares = weights**2
    above = np.einsum("sq,qr,sr->s", weights, products, weights, optimize=True) - squares @ np.diag(products)
    below = weights.sum(axis=1) ** 2 - squares.sum(axis=1)
    return above / np.where(below > 0, below, np.nan)
