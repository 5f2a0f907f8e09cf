"""Statistics of learning curves: by hand, and against brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.learning.numbers import NumbersError, area, mean_of, paired, t_quantile, value_at

CURVE = [(0.0, 0.2), (100.0, 0.4), (300.0, 0.8)]


def test_values_between_points_by_hand():
    assert value_at(CURVE, 0) == 0.2 and value_at(CURVE, 300) == 0.8
    assert value_at(CURVE, 50) == pytest.approx(0.3) and value_at(CURVE, 150) == pytest.approx(0.5)


def test_area_by_hand():
    # 0 to 100: mean .3; 100 to 200, where the line is at .6: mean .5.
    assert area(CURVE, 200) == pytest.approx((100 * 0.3 + 100 * 0.5) / 200)
    assert area(CURVE, 300) == pytest.approx((100 * 0.3 + 200 * 0.6) / 300)
    assert area(CURVE, 100) == pytest.approx(0.3)


@pytest.mark.parametrize("points", [[], [(10.0, 0.1), (500.0, 0.2)], CURVE[:2]])
def test_a_curve_that_does_not_reach_is_refused(points):
    with pytest.raises(NumbersError, match="no value at"):
        area(points, 200)
    with pytest.raises(NumbersError):
        area(CURVE, 0)


@given(
    gaps=st.lists(st.floats(0.5, 50), min_size=1, max_size=8),
    heights=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    share=st.floats(0.05, 1),
)
def test_area_is_the_mean_of_many_heights(gaps, heights, share):
    xs = [sum(gaps[:count]) for count in range(len(gaps) + 1)]
    points = list(zip(xs, heights, strict=False))
    end = share * xs[-1]
    middles = [(number + 0.5) * end / 4000 for number in range(4000)]
    assert area(points, end) == pytest.approx(sum(value_at(points, x) for x in middles) / 4000, abs=2e-3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.1, 2), st.floats(-1, 1))
def test_area_is_linear_in_the_heights(heights, factor, shift):
    points = [(10.0 * number, height) for number, height in enumerate(heights)]
    moved = [(x, factor * y + shift) for x, y in points]
    assert area(moved, points[-1][0]) == pytest.approx(factor * area(points, points[-1][0]) + shift, abs=1e-9)


def test_mean_error_and_interval_by_hand():
    mean = mean_of([0.4, 0.6, 0.8])
    error = 0.2 / 3**0.5
    assert (mean.mean, mean.error, mean.n) == (pytest.approx(0.6), pytest.approx(error), 3)
    assert mean.interval == (pytest.approx(0.6 - 4.303 * error), pytest.approx(0.6 + 4.303 * error))
    assert mean.beyond_two_errors == 1
    one = mean_of([0.4])
    assert (one.error, one.interval, one.beyond_two_errors) == (None, None, None)


@pytest.mark.parametrize(
    ("values", "verdict"), [([0.1, 0.2], 1), ([-0.1, -0.2], -1), ([0.1, -0.1], 0), ([0.0, 0.0], 0), ([0.1, 0.1], 1)]
)
def test_two_standard_errors(values, verdict):
    assert mean_of(values).beyond_two_errors == verdict


def test_exactly_two_standard_errors_are_not_more():
    mean = mean_of([1.0, 3.0])  # error 1
    assert mean.error == 1.0 and mean.mean == 2.0 and mean.beyond_two_errors == 0


def test_differences_are_paired_by_seed():
    difference = paired({0: 0.5, 1: 0.7, 2: 0.9}, {1: 0.6, 2: 0.6, 3: 0.0})
    assert (difference.mean, difference.n) == (pytest.approx(0.2), 2)
    assert difference.error == pytest.approx(0.1)  # of .1 and .3
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_quantiles_fall_and_do_not_end():
    quantiles = [t_quantile(freedom) for freedom in range(1, 40)]
    assert quantiles == sorted(quantiles, reverse=True) and quantiles[1] == 4.303 and quantiles[-1] == 2.042
