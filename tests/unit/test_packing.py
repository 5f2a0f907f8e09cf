"""The trie of training rows, against prefixes counted by hand and by brute force."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.packing import build_trie, common_prefix, predictions, sample_that_shares, sort_rows
from tests.forests import forests, prefixes, tree_rows


def row_nodes(trie, row: int) -> np.ndarray:
    return trie.nodes[trie.offsets[row] : trie.offsets[row + 1]]


def ancestors(trie, node: int) -> list[int]:
    """A node and those above it, root first, by following parents."""
    found = []
    while node >= 0:
        found.append(node)
        node = int(trie.parents[node])
    return found[::-1]


def test_the_example_of_the_docstring():
    a, b, c, d, e = range(5)
    trie = build_trie([np.array(row) for row in ([a, b, c], [a, b, d, e], [a, b])])
    assert trie.token_ids.tolist() == [a, b, c, d, e]
    assert trie.positions.tolist() == [0, 1, 2, 2, 3]
    assert trie.parents.tolist() == [-1, 0, 1, 1, 3]
    assert trie.subtree_end.tolist() == [5, 5, 3, 5, 5]
    assert [row_nodes(trie, row).tolist() for row in range(3)] == [[0, 1, 2], [0, 1, 3, 4], [0, 1]]
    assert trie.ratio == 9 / 5


@given(forests())
def test_there_is_one_node_for_each_distinct_prefix(rows):
    trie = build_trie(rows)
    assert len(trie) == len(prefixes(rows)) == sort_rows(rows).distinct_tokens
    paths = [tuple(trie.token_ids[ancestors(trie, node)].tolist()) for node in range(len(trie))]
    assert set(paths) == prefixes(rows) and len(set(paths)) == len(paths)


@given(forests())
def test_each_row_is_a_path_from_a_first_token_down(rows):
    trie = build_trie(rows)
    assert trie.offsets.tolist() == [0, *np.cumsum([len(row) for row in rows])]
    for number, row in enumerate(rows):
        nodes = row_nodes(trie, number)
        assert trie.token_ids[nodes].tolist() == row.tolist()
        assert trie.positions[nodes].tolist() == list(range(len(row)))
        assert trie.parents[nodes].tolist() == [-1, *nodes[:-1]]


@given(forests())
def test_the_mask_lets_a_node_see_itself_and_its_ancestors_alone(rows):
    trie = build_trie(rows)
    for q in range(len(trie)):
        seen = [k for k in range(len(trie)) if k <= q < trie.subtree_end[k]]
        assert seen == ancestors(trie, q)


@given(forests(), st.randoms())
def test_predictions_return_the_parents_distribution_to_every_row_that_asks(rows, random):
    trie = build_trie(rows)
    asked = np.concatenate([[False] + [random.random() < 0.5 for _ in row[1:]] for row in rows])
    found = predictions(trie, asked)
    flat = np.concatenate(rows)
    tokens = np.flatnonzero(asked)
    assert found.places.tolist() == (tokens - 1).tolist()
    assert found.targets[found.values].tolist() == flat[tokens].tolist()
    assert found.keep[found.source][found.values].tolist() == trie.nodes[tokens - 1].tolist()
    # Nothing is computed twice, and nothing that is not asked for.
    pairs = list(zip(found.source.tolist(), found.targets.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(found.keep.tolist()) == set(trie.nodes[tokens - 1].tolist())


def test_a_first_token_is_predicted_by_nothing():
    with pytest.raises(ValueError, match="first token"):
        predictions(build_trie([np.array([1, 2])]), np.array([True, False]))


@given(forests(), st.integers(0, 60))
def test_a_sample_has_different_rows_that_share_where_any_do(rows, limit):
    chosen = [tuple(rows[i].tolist()) for i in sample_that_shares(rows, limit)]
    different = {tuple(row.tolist()) for row in rows}
    assert len(set(chosen)) == len(chosen) >= min(2, len(different))
    assert len(chosen) <= 2 or sum(map(len, chosen)) <= limit
    if len(different) > 1:
        longest = sort_rows([np.array(row) for row in different]).shared.max()
        assert sort_rows([np.array(row) for row in chosen]).shared.max() == longest


def test_rows_without_tokens_are_refused():
    for rows in ([], [np.array([1]), np.array([], dtype=int)]):
        with pytest.raises(ValueError, match="at least one token"):
            build_trie(rows)


def test_large_token_ids_sort_as_numbers():
    found = sort_rows([np.array([70_000]), np.array([255]), np.array([256])])
    assert [int(row[0]) for row in found.rows] == [255, 256, 70_000]


def test_common_prefix():
    assert common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4])) == 2
    assert common_prefix(np.array([1, 2]), np.array([1, 2, 4])) == 2
    assert common_prefix(np.array([2]), np.array([1, 2])) == 0


def test_a_full_tree_of_the_papers_shape_shares_what_the_formula_says():
    rows = tree_rows(np.random.default_rng(0), 100, [6, 6, 6], 30, 80, 50_000)
    trie = build_trie(rows)
    assert len(trie) == 100 + 6 * 30 + 36 * 30 + 216 * 80
    assert len(trie.nodes) == 6 * 130 + 36 * 160 + 216 * 240


def test_512_rows_of_2000_tokens_take_no_time_worth_speaking_of():
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 150_000, 1_000)
    rows = [np.append(prompt, rng.integers(0, 150_000, 1_000)) for _ in range(512)]
    started = time.process_time()
    assert len(build_trie(rows)) == pytest.approx(1_000 + 512_000, abs=5)
    assert time.process_time() - started < 2.0  # about 0.05 on one core
