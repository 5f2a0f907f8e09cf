"""Each number by hand, against enumeration, and against a bootstrap."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo import statistics


def test_mean_and_its_error_by_hand():
    """Question means 1, 0, 1/2, 1/2: mean 1/2, sd sqrt(1/6), standard error sqrt(1/6)/2."""
    estimate = statistics.mean_at_n([[1, 1], [0, 0], [1, 0], [0, 1]])
    assert estimate.value == 0.5
    assert estimate.standard_error == pytest.approx(math.sqrt(1 / 6) / 2)


def test_samples_of_one_question_do_not_count_as_independent():
    one, many = [[1], [0], [1], [0]], [[1] * 16, [0] * 16, [1] * 16, [0] * 16]
    assert statistics.mean_at_n(one).standard_error == statistics.mean_at_n(many).standard_error


def test_standard_error_agrees_with_a_bootstrap_over_questions():
    random = np.random.default_rng(0)
    scores = random.random((200, 8)) < random.beta(0.7, 0.7, size=(200, 1))
    drawn = statistics.bootstrap_means(scores.mean(axis=1), 20_000, seed=1)
    assert drawn.std() == pytest.approx(statistics.mean_at_n(scores).standard_error, rel=0.03)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random, hits = np.random.default_rng(2), 0
    for _ in range(600):
        rates = random.beta(0.5, 2.0, size=(60, 1))  # mean 0.2
        estimate = statistics.mean_at_n(random.random((60, 4)) < rates)
        hits += estimate.low <= 0.2 <= estimate.high
    assert 0.92 <= hits / 600 <= 0.98


def test_wilson_by_hand():
    """3 of 10 questions, one sample: Wilson's interval for n_eff = p (1-p) / (p (1-p) / (Q-1)) = 9."""
    estimate = statistics.mean_at_n([[1]] * 3 + [[0]] * 7)
    n, z = 9.0, 1.959963984540054
    centre, half = 0.3 + z * z / (2 * n), z * math.sqrt(0.21 / n + z * z / (4 * n * n))
    assert estimate.low == pytest.approx((centre - half) / (1 + z * z / n))
    assert estimate.high == pytest.approx((centre + half) / (1 + z * z / n))


@pytest.mark.parametrize(("scores", "value"), [([[0, 0]] * 20, 0.0), ([[1, 1]] * 20, 1.0)])
def test_all_right_or_all_wrong_is_not_certainty(scores, value):
    estimate = statistics.mean_at_n(scores)
    assert estimate.value == value and estimate.standard_error == 0
    assert estimate.high - estimate.low == pytest.approx(0.161, abs=0.001)  # z^2 / (20 + z^2)
    assert 0 <= estimate.low <= estimate.high <= 1


def test_a_single_question_has_no_standard_error():
    estimate = statistics.mean_at_n([[1, 0]])
    assert math.isnan(estimate.standard_error) and estimate.low < 0.5 < estimate.high


def test_questions_that_are_all_half_right_are_bounded_by_their_samples():
    estimate = statistics.mean_at_n([[1, 0]] * 50)
    assert estimate.standard_error == 0 and estimate.high - estimate.low == pytest.approx(0.19, abs=0.01)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_an_interval_holds_its_value(scores):
    estimate = statistics.mean_at_n(scores)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_normal_interval_of_lengths():
    estimate = statistics.mean_estimate([10.0, 20.0])
    assert (estimate.value, estimate.standard_error) == (15.0, 5.0)
    assert estimate.high == pytest.approx(15 + 5 * 1.959964)


def test_pass_at_k_by_hand():
    """Of 4 samples one is right: 1 - C(3,2)/C(4,2) = 1/2."""
    assert statistics.pass_at_k([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], 2) == pytest.approx([0.5, 0.0, 1.0])


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_right_sample(row, data):
    k = data.draw(st.integers(1, len(row)))
    found = [any(choice) for choice in combinations(row, k)]
    assert statistics.pass_at_k([row], k)[0] == pytest.approx(sum(found) / len(found))


def test_pass_at_k_of_many_samples_is_finite():
    row = np.zeros((1, 20_000))
    row[0, 0] = 1
    assert statistics.pass_at_k(row, 10_000)[0] == pytest.approx(0.5)


def test_pass_at_1_is_the_mean():
    scores = np.random.default_rng(0).random((20, 7)) < 0.3
    assert statistics.pass_at_k(scores, 1) == pytest.approx(scores.mean(axis=1))


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_be_among_the_samples(k):
    for function in (
        lambda: statistics.pass_at_k([[1, 0]], k),
        lambda: statistics.majority_at_k([["1", "2"]], [[1, 0]], k),
    ):
        with pytest.raises(ValueError, match="between 1 and the 2 samples"):
            function()


@pytest.mark.parametrize(
    ("votes", "correct", "expected"),
    [
        (["7", "7", "8", "9"], [1, 1, 0, 0], 1.0),
        (["8", "8", "7", "9"], [0, 0, 1, 0], 0.0),
        (["7", "7", "8", "8"], [1, 1, 0, 0], 0.5),  # a tie is shared
        (["", "", "", "7"], [0, 0, 0, 1], 1.0),  # three samples without an answer do not vote
        (["", "", "", ""], [0, 0, 0, 0], 0.0),
        (["7", "8", "9", ""], [1, 0, 0, 0], 1 / 3),
    ],
)
def test_majority_of_all_samples_by_hand(votes, correct, expected):
    assert statistics.majority_at_k([votes], [correct], 4)[0] == pytest.approx(expected)


def enumerated_majority(votes, correct, k):
    total = []
    for chosen in combinations(range(len(votes)), k):
        counts = Counter(votes[i] for i in chosen if votes[i])
        winners = [name for name, count in counts.items() if count == max(counts.values())]
        total.append(sum(correct[votes.index(name)] for name in winners) / len(winners) if winners else 0.0)
    return sum(total) / len(total)


@given(st.lists(st.sampled_from(["", "1", "2", "3"]), min_size=1, max_size=7), st.data())
def test_majority_against_enumeration(votes, data):
    k = data.draw(st.integers(1, len(votes)))
    correct = [int(vote == "2") for vote in votes]
    found = statistics.majority_at_k([votes], [correct], k)[0]
    assert found == pytest.approx(enumerated_majority(votes, correct, k))


def test_majority_by_drawn_choices_is_seeded_and_near_the_truth():
    """C(16, 8) = 12,870 choices are more than are looked at."""
    random = np.random.default_rng(3)
    votes = [list(random.choice(["1", "2", "3"], size=16)) for _ in range(10)]
    correct = [[int(vote == "2") for vote in row] for row in votes]
    found = statistics.majority_at_k(votes, correct, 8, seed=5)
    assert (found == statistics.majority_at_k(votes, correct, 8, seed=5)).all()
    exact = [enumerated_majority(v, c, 8) for v, c in zip(votes[:2], correct[:2], strict=True)]
    assert found[:2] == pytest.approx(exact, abs=0.07)


def test_paired_bootstrap_by_hand():
    """Differences 1, 0, 0, -1, 1: mean 0.2; two results that are the same do not differ."""
    difference, drawn = statistics.paired_bootstrap([0, 1, 0, 1, 0], [1, 1, 0, 0, 1], seed=0)
    assert difference.value == pytest.approx(0.2)
    assert difference.standard_error == pytest.approx(np.std([1, 0, 0, -1, 1], ddof=1) / math.sqrt(5))
    assert difference.low < 0 < difference.high and difference.p_value > 0.3
    assert len(drawn) == statistics.RESAMPLES
    same, _ = statistics.paired_bootstrap([0.5, 1, 0], [0.5, 1, 0])
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(("count", "same", "least"), [(1, 0, 1.0), (2, 0, 0.5), (3, 0, 0.25), (3, 997, 0.25)])
def test_few_questions_prove_little(count, same, least):
    """As the sign test says it of so many that all went one way, whatever the number that did not move."""
    first = np.zeros(count + same)
    second = np.concatenate([np.ones(count), np.zeros(same)])
    difference, _ = statistics.paired_bootstrap(first, second)
    assert difference.p_value >= least
    assert math.isnan(difference.low) == math.isnan(difference.high) == (count + same == 1)


def test_pairing_finds_what_two_separate_errors_hide():
    random = np.random.default_rng(4)
    first = random.random(400)
    second = np.clip(first + 0.02 + random.normal(0, 0.05, 400), 0, 1)
    difference, drawn = statistics.paired_bootstrap(first, second)
    assert difference.low > 0 and difference.p_value < 0.001
    assert drawn.std() == pytest.approx(difference.standard_error, rel=0.05)
    apart = math.hypot(statistics.clustered_standard_error(first), statistics.clustered_standard_error(second))
    assert difference.value < apart


def test_the_p_value_is_uniform_where_there_is_no_difference():
    random, small = np.random.default_rng(6), 0
    for seed in range(200):
        first, second = random.random((2, 80))
        small += statistics.paired_bootstrap(first, second, resamples=400, seed=seed)[0].p_value < 0.1
    assert 0.05 <= small / 200 <= 0.16


def test_results_of_different_length_are_refused():
    with pytest.raises(ValueError, match="same questions"):
        statistics.paired_bootstrap([1, 0], [1])
    with pytest.raises(ValueError, match="questions x samples"):
        statistics.mean_at_n([])
