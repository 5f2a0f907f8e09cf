"""Dealing rows out to optimiser steps and ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.batching import arrival_order, optimizer_step_order


def dealt(lengths, is_padding, ranks, steps, seed=0):
    """Cut the order as verl does: ranks first, then steps; gives [step][rank] -> rows."""
    order = optimizer_step_order(lengths, is_padding, ranks, steps, seed)
    per_rank = len(order) // ranks
    per_step = per_rank // steps
    cut = [order[r * per_rank : (r + 1) * per_rank] for r in range(ranks)]
    return [[cut[r][s * per_step : (s + 1) * per_step] for r in range(ranks)] for s in range(steps)]


@st.composite
def batches(draw):
    ranks, steps = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    real = draw(st.integers(1, 60))
    total = -(-real // (ranks * steps)) * ranks * steps
    lengths = draw(st.lists(st.integers(1, 500), min_size=real, max_size=real))
    return lengths + [128] * (total - real), [False] * real + [True] * (total - real), ranks, steps


@given(batches(), st.integers(0, 5))
def test_every_row_once_and_real_rows_spread_evenly(batch, seed):
    lengths, is_padding, ranks, steps = batch
    table = dealt(lengths, is_padding, ranks, steps, seed)
    assert sorted(row for step in table for share in step for row in share) == list(range(len(lengths)))
    real = [sum(not is_padding[row] for share in step for row in share) for step in table]
    assert max(real) - min(real) <= 1


@given(batches(), st.integers(0, 5))
def test_the_same_rows_make_the_same_steps_on_any_number_of_ranks(batch, seed):
    lengths, is_padding, _, steps = batch
    real = [length for length, padding in zip(lengths, is_padding, strict=True) if not padding]

    def members(ranks: int) -> list[set[int]]:
        padding = -len(real) % (ranks * steps)
        table = dealt(real + [128] * padding, [False] * len(real) + [True] * padding, ranks, steps, seed)
        return [{row for share in step for row in share if row < len(real)} for step in table]

    assert members(1) == members(2) == members(3)


def test_a_balanced_batch_goes_back_to_the_order_of_arrival():
    now = ["pad_1", "c", "a", "pad_0", "b"]
    assert [now[i] for i in arrival_order(["b", "c", "a"], now)] == ["b", "c", "a", "pad_0", "pad_1"]


def test_padding_is_not_heaped_on_one_step():
    # 5 real rows, 4 steps, 2 ranks: 8 slots, 3 pads. verl's own order puts all pads last.
    table = dealt([10] * 5 + [128] * 3, [False] * 5 + [True] * 3, ranks=2, steps=4)
    pads = [sum(row >= 5 for share in step for row in share) for step in table]
    assert sorted(pads) == [0, 1, 1, 1]


def test_ranks_get_about_the_same_tokens():
    lengths = [100, 90, 80, 70, 60, 50, 40, 30]
    table = dealt(lengths, [False] * 8, ranks=2, steps=1)
    left, right = (sum(lengths[row] for row in share) for share in table[0])
    assert abs(left - right) <= 20


@given(batches(), st.integers(0, 5), st.integers(1, 6))
def test_kin_meet_on_a_rank_and_steps_stay_as_they_were(batch, seed, questions):
    lengths, is_padding, ranks, steps = batch
    kin = [(str(i % questions), str(i)) for i in range(len(lengths))]
    per_rank = len(lengths) // ranks
    orders = [optimizer_step_order(lengths, is_padding, ranks, steps, seed, kin=k) for k in (None, kin)]

    def steps_of(order: list[int]) -> list[list[list[int]]]:
        size = per_rank // steps
        return [
            [order[r * per_rank + s * size : r * per_rank + (s + 1) * size] for r in range(ranks)] for s in range(steps)
        ]

    for apart, together in zip(*map(steps_of, orders), strict=True):
        assert sorted(sum(apart, [])) == sorted(sum(together, []))
        real = [[row for row in share if not is_padding[row]] for share in together]
        # One rank goes on where the one before it stopped, so a question is cut between neighbours only.
        assert [kin[row] for share in real for row in share] == sorted(kin[row] for share in real for row in share)


def test_the_seed_decides_and_nothing_else():
    batch = ([5] * 40, [False] * 40, 1, 4)
    assert optimizer_step_order(*batch, seed=1) == optimizer_step_order(*batch, seed=1)
    assert optimizer_step_order(*batch, seed=1) != optimizer_step_order(*batch, seed=2)


@pytest.mark.parametrize("rows", [0, 7])
def test_an_unpadded_batch_is_refused(rows):
    with pytest.raises(ValueError, match="do not divide"):
        optimizer_step_order([1] * rows, [False] * rows, ranks=1, steps=4, seed=0)


def test_a_batch_of_padding_is_refused():
    with pytest.raises(ValueError, match="padding rows"):
        optimizer_step_order([1] * 8, [True] * 8, ranks=1, steps=4, seed=0)
