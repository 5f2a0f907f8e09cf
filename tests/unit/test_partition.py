"""Cuts: worked by hand, against brute force, and where tokens begin in the text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.cutting import cutting_rule
from recipe.spo.partition import (
    equal_cuts,
    fixed_length_cuts,
    low_probability_cuts,
    segments,
    step_cuts,
    token_starts,
    visible_starts,
)
from recipe.spo.rows import probability_mask
from recipe.spo.tree import Node
from tests.unit.test_settings import settings


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


# --- low-probability tokens ----------------------------------------------------------------------


def test_a_segment_begins_at_every_second_improbable_token():
    cuts = low_probability_cuts(logs(0.5, 0.95, 0.99, 0.3, 0.95, 0.2, 0.99, 0.8), 0.9, 2)
    assert cuts == [0, 5]
    assert segments(cuts, 8) == [(0, 5), (5, 8)]


def test_tokens_before_the_first_improbable_one_belong_to_no_segment():
    cuts = low_probability_cuts(logs(0.95, 0.99, 0.5, 0.95, 0.3), 0.9, 5)
    assert segments(cuts, 5) == [(2, 5)]


def test_no_improbable_token_no_segment():
    assert low_probability_cuts(logs(0.9, 0.95, 1.0), 0.9, 1) == []
    assert segments([], 3) == []


def test_one_improbable_token_alone_is_a_segment_from_the_prompt():
    assert low_probability_cuts(logs(0.5), 0.9, 5) == [0]


def test_the_threshold_is_strict():
    assert math.exp(math.log(0.5)) == 0.5  # so that the next line is about a token exactly at it
    assert low_probability_cuts(logs(0.5, 0.49), 0.5, 1) == [1]
    assert low_probability_cuts([0.0, -1e-9], 1.0, 1) == [1]


def test_eleven_improbable_tokens_by_five_make_three_segments():
    cuts = low_probability_cuts(logs(*[0.5, 0.99] * 11), 0.9, 5)
    assert cuts == [0, 10, 20]
    assert segments(cuts, 22)[-1] == (20, 22)  # one improbable token, and the rest of the response


def test_a_large_interval_gives_one_segment():
    assert low_probability_cuts(logs(0.99, 0.5, 0.5, 0.5), 0.9, 100) == [1]


responses = st.lists(st.floats(-3, 0), min_size=1, max_size=60)


@given(responses, st.floats(0.05, 1.0), st.integers(1, 7))
def test_low_probability_cuts_equal_brute_force(log_probs, threshold, interval):
    seen, expected = 0, []
    for i, log_prob in enumerate(log_probs):
        if math.exp(log_prob) < threshold:
            if seen % interval == 0:
                expected.append(i)
            seen += 1
    assert low_probability_cuts(log_probs, threshold, interval) == expected


@given(responses, st.floats(0.05, 1.0), st.integers(1, 7))
def test_every_segment_holds_interval_improbable_tokens_and_begins_with_one(log_probs, threshold, interval):
    low = probability_mask(log_probs, threshold)
    ranges = segments(low_probability_cuts(log_probs, threshold, interval), len(log_probs))
    counts = [sum(low[begin:end]) for begin, end in ranges]
    assert all(count == interval for count in counts[:-1])
    assert all(1 <= count <= interval for count in counts)
    assert sum(counts) == sum(low)
    assert all(low[begin] for begin, _ in ranges)


# --- fixed length, equal parts, segments ---------------------------------------------------------


def test_fixed_length():
    assert fixed_length_cuts(7, 3) == [0, 3, 6]
    assert fixed_length_cuts(6, 3) == [0, 3]  # no empty segment at the end
    assert fixed_length_cuts(2, 30) == [0]


def test_equal_parts_begin_at_the_prompt_and_the_earlier_ones_are_longer():
    assert segments(equal_cuts(10, 4), 10) == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert equal_cuts(8, 4) == [0, 2, 4, 6]


def test_more_parts_than_tokens_give_a_segment_a_token():
    assert equal_cuts(3, 4) == [0, 1, 2]


@given(st.integers(1, 300), st.integers(1, 40))
def test_equal_parts_differ_by_one_token_at_most(tokens, parts):
    sizes = [end - begin for begin, end in segments(equal_cuts(tokens, parts), tokens)]
    assert len(sizes) == min(parts, tokens) and sum(sizes) == tokens
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


@given(st.sets(st.integers(0, 40)), st.integers(1, 41))
def test_segments_leave_no_gap_after_the_first_cut(cuts, tokens):
    cuts = sorted(cut for cut in cuts if cut < tokens)
    covered = [i for begin, end in segments(cuts, tokens) for i in range(begin, end)]
    assert covered == (list(range(cuts[0], tokens)) if cuts else [])


@pytest.mark.parametrize("cuts", [[0, 0], [3, 2], [-1, 2], [0, 5], [6]])
def test_cuts_that_are_no_cuts_are_refused(cuts):
    with pytest.raises(ValueError, match="increase strictly within 0 .. 4"):
        segments(cuts, 5)


# --- reasoning steps -----------------------------------------------------------------------------


def test_a_token_belongs_to_the_step_that_holds_its_first_character():
    starts = [0, 3, 6, 9]
    assert step_cuts(starts, [0, 6]) == [0, 2]
    assert step_cuts(starts, [0, 5]) == [0, 2]  # the step begins within token 1
    assert step_cuts(starts, [0, 7]) == [0, 3]


def test_steps_that_begin_within_one_token_give_one_cut():
    assert step_cuts([0, 2, 10], [0, 3, 4, 5]) == [0, 2]


def test_a_step_without_a_token_gives_no_cut():
    assert step_cuts([0, 2], [0, 5]) == [0]


def test_further_steps_join_the_last_one():
    starts, steps = list(range(9)), [0, 2, 4, 6]
    assert step_cuts(starts, steps) == [0, 2, 4, 6]
    assert segments(step_cuts(starts, steps, max_steps=2), 9) == [(0, 2), (2, 9)]
    assert step_cuts(starts, steps, max_steps=1) == [0]
    assert step_cuts(starts, steps, max_steps=25) == [0, 2, 4, 6]


@given(st.lists(st.integers(0, 4), max_size=30), st.sets(st.integers(1, 80), max_size=9), st.integers(1, 12))
def test_step_cuts_equal_brute_force(lengths, later_steps, max_steps):
    starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    steps = [0, *sorted(later_steps)]
    holder = [max(k for k, begin in enumerate(steps) if begin <= start) for start in starts]
    cuts = [holder.index(step) for step in sorted(set(holder))]
    assert step_cuts(starts, steps) == cuts
    assert step_cuts(starts, steps, max_steps) == cuts[:max_steps]


@pytest.mark.parametrize("steps", [[], [1], [0, 3, 3], [0, 4, 2]])
def test_steps_that_do_not_increase_from_zero_are_refused(steps):
    with pytest.raises(ValueError, match="increasing offsets from 0"):
        step_cuts([0, 1], steps)


def test_a_token_that_carries_the_space_before_its_word_is_placed_by_the_word():
    text, starts = "A. Then b.\n\n", [0, 1, 2, 7, 9, 11]  # "A" "." " Then" " b" ".\n" "\n"
    assert visible_starts(text, starts) == [0, 1, 3, 8, 9, 11]
    assert step_cuts(starts, [0, 3]) == [0, 3]  # "Then" counts to the sentence before
    assert step_cuts(visible_starts(text, starts), [0, 3]) == [0, 2]


@given(st.lists(st.text(" \nab", max_size=4), min_size=1))
def test_visible_starts_stay_within_their_tokens(pieces):
    text = "".join(pieces)
    starts = [len("".join(pieces[:i])) for i in range(len(pieces))]
    for piece, start, moved in zip(pieces, starts, visible_starts(text, starts), strict=True):
        assert start <= moved <= start + len(piece)
        assert text[start:moved].strip() == ""
        if piece.strip():
            assert not text[moved].isspace() and moved < start + len(piece)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: low_probability_cuts([-1.0], 0.9, 0), "interval.*not 0"),
        (lambda: low_probability_cuts([-1.0], 0.0, 1), "threshold.*not 0"),
        (lambda: low_probability_cuts([-1.0], 1.1, 1), "threshold.*not 1.1"),
        (lambda: low_probability_cuts([-1.0], math.nan, 1), "threshold.*not nan"),
        (lambda: fixed_length_cuts(4, 0), "length.*not 0"),
        (lambda: equal_cuts(4, 0), "at least 1 part, not 0"),
        (lambda: step_cuts([0], [0], max_steps=0), "max_steps cannot be 0"),
        (lambda: low_probability_cuts([], 0.9, 1), "without tokens"),
        (lambda: fixed_length_cuts(0, 1), "without tokens"),
        (lambda: equal_cuts(0, 1), "without tokens"),
        (lambda: step_cuts([], [0]), "without tokens"),
        (lambda: segments([], 0), "without tokens"),
        (lambda: token_starts([], lambda ids: ""), "without tokens"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


THRESHOLDS = {"cut_threshold": 0.5, "mask_threshold": 0.9}
#: All are below the mask's threshold, the second and the fourth below that of cuts.
LOG_PROBS = [math.log(p) for p in (0.7, 0.3, 0.8, 0.4)]


def test_chains_are_cut_by_the_cut_threshold_not_the_masks():
    rule = cutting_rule(settings(of="chain", chain={"cut_interval": 1}, **THRESHOLDS), decode=str)
    assert rule(Node(token_ids=[1, 2, 3, 4], log_probs=LOG_PROBS)) == [1, 3]


def test_trees_are_cut_by_the_cut_threshold_not_the_masks():
    shape = {"partition": "low_probability", "cut_interval": 1}
    assert cutting_rule(settings(tree=shape, **THRESHOLDS), decode=str)([1, 2, 3, 4], LOG_PROBS) == 2
