"""Tree values and advantages: hand-worked cases, and an independent brute force on random trees."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.advantage import tree_samples
from recipe.spo.tree import Node, compute_values, walk
from tests.builders import inner, leaf, root_of


def values(root: Node) -> dict[tuple[int, ...], float]:
    compute_values(root)
    return {visit.path: visit.node.value for visit in walk(root)}


def advantages(root: Node) -> dict[tuple[int, ...], float]:
    compute_values(root)
    return {sample.path: sample.advantages[0] for sample in tree_samples(root)}


def test_value_of_a_node_is_the_mean_of_its_children():
    root = root_of(leaf(1), leaf(0), leaf(0), leaf(0.5))
    assert values(root)[()] == 0.375
    assert advantages(root) == {(0,): 0.625, (1,): -0.375, (2,): -0.375, (3,): 0.125}


def test_an_early_leaf_counts_as_one_child():
    root = root_of(leaf(1), inner(leaf(0), leaf(1)))
    assert values(root)[()] == 0.75  # not 2/3, the mean over all leaves


def test_three_levels_worked_by_hand():
    root = root_of(inner(leaf(1), leaf(1)), inner(leaf(0), inner(leaf(1), leaf(0))))
    # V(1,1) = 1/2, V(1) = (0 + 1/2) / 2 = 1/4, V(0) = 1, V() = 5/8
    assert advantages(root) == {
        (0,): 0.375,
        (0, 0): 0.0,
        (0, 1): 0.0,
        (1,): -0.375,
        (1, 0): -0.25,
        (1, 1): 0.25,
        (1, 1, 0): 0.5,
        (1, 1, 1): -0.5,
    }


def test_rounding_noise_of_equal_siblings_is_exactly_zero():
    root = root_of(*(inner(leaf(0.1), leaf(0.1), leaf(0.1)) for _ in range(3)))
    assert set(advantages(root).values()) == {0.0}


def test_a_segment_carries_its_context_and_tokens():
    root = Node(children=[Node([7, 8], [-0.1, -0.2], children=[Node([9], [-0.3], True, reward=1.0)])])
    compute_values(root)
    first, second = tree_samples(root)
    assert (first.prefix_ids, first.token_ids, first.log_probs) == ((), (7, 8), (-0.1, -0.2))
    assert (second.prefix_ids, second.token_ids, second.log_probs) == ((7, 8), (9,), (-0.3,))


def test_an_ungraded_leaf_is_refused():
    with pytest.raises(ValueError, match="leaf .0,. has no reward"):
        compute_values(root_of(Node([1], [-0.1]), leaf(1)))


def test_a_graded_inner_node_is_refused():
    root = root_of(leaf(1), leaf(0))
    root.children[0].children = [leaf(1)]
    with pytest.raises(ValueError, match="children and a reward"):
        compute_values(root)


def test_advantages_need_values():
    with pytest.raises(ValueError, match="compute_values"):
        list(tree_samples(root_of(leaf(1), leaf(0))))


rewards = st.integers(0, 8).map(lambda n: n / 8)
random_trees = st.recursive(
    rewards.map(leaf), lambda trees: st.lists(trees, min_size=1, max_size=4).map(lambda c: inner(*c)), max_leaves=40
).filter(lambda tree: not tree.is_leaf)
random_trees = random_trees.map(lambda tree: root_of(*tree.children))


def exact_value(node: Node) -> Fraction:
    """Independent of the code under test: expected reward of walking down, choosing children evenly."""
    expected = Fraction(0)
    stack = [(node, Fraction(1))]
    while stack:
        at, probability = stack.pop()
        if not at.children:
            expected += probability * Fraction(at.reward)
        for child in at.children:
            stack.append((child, probability / len(at.children)))
    return expected


@given(random_trees)
def test_values_and_advantages_equal_brute_force(root: Node):
    found = advantages(root)
    nodes = {(): root}
    for path in sorted(found, key=len):
        nodes[path] = nodes[path[:-1]].children[path[-1]]
        expected = exact_value(nodes[path]) - exact_value(nodes[path[:-1]])
        assert math.isclose(nodes[path].value, exact_value(nodes[path]), abs_tol=1e-12)
        assert math.isclose(found[path], expected, abs_tol=1e-12)
        assert (found[path] == 0.0) == (expected == 0)
    assert len(nodes) == sum(1 for _ in walk(root))


@given(random_trees)
def test_siblings_sum_to_zero_and_paths_telescope(root: Node):
    found = advantages(root)
    for visit in walk(root):
        if visit.node.is_leaf:
            along_path = sum(found[visit.path[: i + 1]] for i in range(visit.depth))
            assert math.isclose(along_path, visit.node.reward - root.value, abs_tol=1e-9)
        else:
            siblings = [found[(*visit.path, i)] for i in range(len(visit.node.children))]
            assert math.isclose(sum(siblings), 0.0, abs_tol=1e-9)


@given(random_trees)
def test_segments_of_a_path_leave_no_gap_and_do_not_overlap(root: Node):
    compute_values(root)
    by_path = {segment.path: segment for segment in tree_samples(root)}
    for visit in walk(root):
        response: tuple[int, ...] = ()
        for depth in range(1, visit.depth + 1):
            segment = by_path[visit.path[:depth]]
            assert segment.prefix_ids == response
            response += segment.token_ids
        assert response == visit.response_ids
