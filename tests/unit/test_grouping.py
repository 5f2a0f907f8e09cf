"""Cutting rows into micro-batches: the cheapest cut, by brute force over all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.grouping import Cost, cost_of_model, group_rows
from recipe.spo.packing import build_trie, sort_rows
from tests.forests import forests, tree_rows

COSTS = [Cost(pair=0.1, batch=2.0, dense=True), Cost(pair=0.1, batch=2.0, dense=False), Cost(0.0, 1.0, False)]


def cost_of(rows: list[np.ndarray], cost: Cost) -> float:
    """Of one micro-batch, from its trie."""
    trie = build_trie(rows)
    visited = len(trie) ** 2 if cost.dense else int((trie.positions + 1).sum())
    return len(trie) + cost.pair * visited + cost.batch


def cheapest(rows: list[np.ndarray], budget: int, cost: Cost) -> float:
    """Over every way to cut the sorted rows into intervals."""
    ordered = list(sort_rows(rows).rows)
    best = float("inf")
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(ordered)]
        groups = [ordered[a:b] for a, b in itertools.pairwise(edges)]
        if all(len(build_trie(group)) <= budget for group in groups):
            best = min(best, sum(cost_of(group, cost) for group in groups))
    return best


@pytest.mark.parametrize("cost", COSTS)
@given(rows=forests(), spare=st.integers(0, 20))
def test_no_cut_within_the_budget_is_cheaper(cost, rows, spare):
    budget = max(map(len, rows)) + spare
    found = group_rows(sort_rows(rows), budget, cost)
    assert sorted(row for group in found.groups for row in group) == list(range(len(rows)))
    tries = [build_trie([rows[i] for i in group]) for group in found.groups]
    assert max(map(len, tries)) <= budget
    assert found.nodes == sum(map(len, tries)) >= found.distinct == len(build_trie(rows))
    assert found.tokens == sum(map(len, rows))
    assert found.cost == pytest.approx(sum(cost_of([rows[i] for i in group], cost) for group in found.groups))
    assert found.cost == pytest.approx(cheapest(rows, budget, cost))


@given(rows=forests(), more=st.integers(0, 7))
def test_there_are_as_many_micro_batches_as_other_ranks_need(rows, more):
    at_least = min(len(rows), 1 + more)
    found = group_rows(sort_rows(rows), 100, COSTS[0], at_least)
    assert len(found.groups) >= at_least and all(found.groups)
    assert sorted(row for group in found.groups for row in group) == list(range(len(rows)))


def test_a_dense_mask_is_cut_into_subtrees_and_a_sparse_one_is_not():
    rows = tree_rows(np.random.default_rng(0), 20, [4, 4], 30, 30, 50_000)
    dense, sparse = (group_rows(sort_rows(rows), 10_000, Cost(0.01, 5.0, d)) for d in (True, False))
    assert len(dense.groups) > len(sparse.groups) == 1
    assert sparse.nodes == sparse.distinct < dense.nodes < dense.tokens


def test_rows_that_share_nothing_cost_less_one_by_one():
    rows = [np.arange(100) + 1_000 * i for i in range(20)]
    found = group_rows(sort_rows(rows), 400, Cost(0.001, 5.0, True))
    assert found.rows_cost < found.cost
    tree = tree_rows(np.random.default_rng(0), 100, [6, 6], 30, 30, 50_000)
    found = group_rows(sort_rows(tree), 400, Cost(0.001, 5.0, True))
    assert found.cost < 0.7 * found.rows_cost


def test_rows_have_the_price_of_their_own_kernel():
    rows = sort_rows([np.arange(100), np.arange(100) + 500])
    alike, cheaper = (group_rows(rows, 200, Cost(0.1, 0.0, False, row_pair)) for row_pair in (None, 0.05))
    assert alike.rows_cost == pytest.approx(200 + 0.1 * 100**2)
    assert cheaper.rows_cost == pytest.approx(200 + 0.05 * 100**2) and cheaper.cost == alike.cost
    shape = {"hidden": 64, "inner": 128, "heads": 4, "key_heads": 2, "head_size": 16}
    dense, sparse = (cost_of_model(**shape, dense=d) for d in (True, False))
    assert dense.row_pair is None and sparse.row_pair < sparse.pair


def test_what_does_not_fit_is_refused():
    rows = sort_rows([np.arange(5), np.arange(7)])
    with pytest.raises(ValueError, match="7 tokens, more than the 6"):
        group_rows(rows, 6, COSTS[0])
    with pytest.raises(ValueError, match="2 rows cannot make 3"):
        group_rows(rows, 10, COSTS[0], at_least=3)
