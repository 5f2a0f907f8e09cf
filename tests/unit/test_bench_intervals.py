"""Intervals of the value bench: coverage, paired differences, families at a budget, second-order statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recipe.spo.bench import accuracy
from recipe.spo.bench.gradients import view
from recipe.spo.bench.intervals import draws, estimate
from recipe.spo.bench.levels import Level, at_budget, difference
from recipe.spo.bench.picture import family_style
from recipe.spo.bench.tables import number


def of(values) -> Level:
    """The mean of a number a question."""
    values = np.asarray(values, dtype=np.float64)
    return Level(np.stack([values, np.ones(len(values))], axis=1), accuracy.ratio)


# --- bootstrap-t ---------------------------------------------------------------------------------


@pytest.mark.parametrize("questions", [16, 40])
def test_an_interval_covers_a_skewed_mean_as_often_as_it_says(questions):
    """The mean of e^1.5: percentile intervals hold it in 86 % and 90 % of cases only."""
    random, covered = np.random.default_rng(1), 0
    for trial in range(400):
        level = of(random.exponential(size=questions) ** 1.5)
        found = level.interval(draws(questions, 300, trial))
        covered += found.low < math.gamma(2.5) < found.high
    assert 0.9 < covered / 400 < 0.98


def test_resamples_without_a_number_are_never_left_out_silently():
    drawn = draws(6, 4000, 0)

    def half(shy: float):
        """A mean that is not defined where question 0 is drawn more often than `shy`."""

        def statistic(sums):
            return np.where(sums[..., 2] > shy, np.nan, accuracy.ratio(sums))

        return np.hstack([of(np.arange(6)).sums, np.eye(6)[:, :1]]), statistic

    assert estimate(*half(6), drawn).high == pytest.approx(of(np.arange(6)).interval(drawn).high)
    rare, often = estimate(*half(3), drawn), estimate(*half(2), drawn)  # 0.9 % and 6 % of the resamples
    assert rare.low <= of(np.arange(6)).interval(drawn).low and rare.high >= of(np.arange(6)).interval(drawn).high
    assert often.value == 2.5 and np.isnan([often.low, often.high]).all()


def test_a_number_that_is_the_same_in_all_questions_has_an_interval_without_width():
    found = of([1] * 5).interval(draws(5, 100, 0))
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert np.isnan(of([1] * 4).interval(draws(4, 100, 0)).low)  # of too few


# --- differences ---------------------------------------------------------------------------------


def test_a_difference_is_paired():
    """Two methods far apart on no question by much, with hard and easy questions: only pairing tells them apart."""
    random, drawn = np.random.default_rng(0), draws(16, 1000, 0)
    hard = random.exponential(size=16)
    worse, better = of(hard + 0.1 + random.normal(size=16) * 0.02), of(hard)
    apart = difference(worse, better).interval(drawn)
    assert 0.08 < apart.low < apart.value < apart.high < 0.12
    assert better.interval(drawn).high > worse.interval(drawn).low  # though their intervals overlap
    none = difference(better, better).interval(drawn)
    assert (none.value, none.low, none.high) == (0, 0, 0)


# --- families ------------------------------------------------------------------------------------


def test_the_budget_lies_between_sizes_and_never_beyond():
    sizes, tokens = [of([0.4] * 4), of([0.1] * 4)], [100.0, 400.0]
    assert at_budget(sizes, tokens, 200, error=True).value == pytest.approx(0.2)
    assert at_budget(sizes, tokens, 200, error=False).value == pytest.approx(0.25)
    assert at_budget(sizes, tokens, 400, error=True).value == pytest.approx(0.1)
    assert at_budget(sizes, tokens, 99, error=True) is None and at_budget(sizes, tokens, 401, error=True) is None
    assert at_budget([of([-0.1] * 4), sizes[1]], tokens, 200, error=True).value == pytest.approx(0)


def test_a_budget_at_the_edge_has_an_interval_from_all_resamples():
    """Mean tokens of a resample may lie beyond the budget; its place between the sizes is that of all questions."""
    random, drawn = np.random.default_rng(0), draws(16, 500, 0)
    sizes = [of(random.exponential(size=16)), of(random.exponential(size=16) / 2)]
    found = at_budget(sizes, [671.0, 1343.0], 672.0, error=True).interval(drawn)
    alone = sizes[0].interval(drawn)
    assert found.low == pytest.approx(alone.low, rel=0.01) and found.high == pytest.approx(alone.high, rel=0.01)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 6.0])
def test_the_error_of_the_signal_is_right_with_and_without_one(mean):
    """A bootstrap of questions says 1.7 times too much where there is no signal, the plain jackknife 1.5 times."""
    random, questions = np.random.default_rng(3), 16
    values, errors, covered = [], [], 0
    for _ in range(300):
        gradients = random.normal(size=(questions, 8)) * np.linspace(2, 0.5, 8)
        gradients[:, 0] += mean
        found = view(gradients, gradients, np.ones(questions), np.ones(questions), 100.0).signal
        values.append(found.value)
        errors.append((found.high - found.low) / 2 / 2.131)
        covered += found.low <= mean**2 <= found.high
    assert np.mean(values) == pytest.approx(mean**2, abs=3 * np.std(values) / 300**0.5)
    assert 0.85 < math.sqrt(np.mean(np.square(errors))) / np.std(values) < 1.3
    assert 0.9 < covered / 300 < 0.99


def test_without_a_signal_noise_has_no_upper_end():
    random = np.random.default_rng(0)
    view_of = lambda gradients: view(gradients, gradients, np.ones(16), np.full(16, 2.0), 4.0)  # noqa: E731
    noise = random.normal(size=(16, 50))
    found, sure = view_of(noise - 0.05 * noise.mean(axis=0)), view_of(noise + 3)
    assert found.signal.value < 0 < found.signal.high and found.noise_to_signal.low > 0
    assert np.isnan([found.noise_to_signal.value, found.noise_to_signal.high, found.cosine.low]).all()
    assert number(found.noise_to_signal.as_json(), 2).startswith("above ")
    assert 0 < sure.noise_to_signal.low < sure.noise_to_signal.value < sure.noise_to_signal.high < 0.1
    assert sure.agreement.value == pytest.approx(1 / (1 + sure.noise_to_signal.value)) and sure.cosine.low > 0.9
    # 4 tokens pay for four questions of 2 trained tokens each
    assert sure.step_variance.value == pytest.approx(sure.variance.value / 4 / 4)
    assert sure.step_variance.low < 50 / 16 < sure.step_variance.high


# --- what is shown -------------------------------------------------------------------------------


def test_a_number_shows_its_interval_or_what_there_is_of_it():
    shown = [(1, 0.5, 2), (1, 0.5, None), (None, 0.5, None), (1, None, None), (None, None, None)]
    texts = [number(dict(zip(("value", "low", "high"), each, strict=True)), 1) for each in shown]
    assert texts == ["1.0 [0.5, 2.0]", "1.0 [0.5, no end]", "above 0.5", "1.0", "-"]
    assert number({"value": 0.1, "low": -0.1, "high": 0.3}, 1, "+") == "+0.1 [-0.1, +0.3]" and number(None) == "-"


def test_every_family_has_a_colour_and_a_marker_of_its_own():
    styles = [family_style(place) for place in range(8)]
    assert len({style["color"] for style in styles}) == len({style["marker"] for style in styles}) == 8
    assert len({tuple(family_style(place).values()) for place in range(32)}) == 32
