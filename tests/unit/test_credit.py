"""Credit rules: worked by hand, against the textbook formulas, and against exact brute force on random trees."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.advantage import tree_samples
from recipe.spo.credit import (
    CHAIN_RULES,
    STD_EPSILON,
    TREE_RULES,
    UnknownRule,
    chain_rule,
    difference,
    find_rule,
    global_local,
    leave_one_out,
    mean,
    shrinkage,
    std,
    tree_rule,
)
from recipe.spo.tree import Node, compute_values
from tests.builders import inner, leaf, root_of

Path = tuple[int, ...]
LOCAL_RULES = pytest.mark.parametrize("rule", [mean, leave_one_out, std])


def advantages(root: Node, rule) -> dict[Path, float]:
    compute_values(root)
    return {sample.path: sample.advantages[0] for sample in tree_samples(root, rule)}


def group(*rewards: float) -> Node:
    return root_of(*map(leaf, rewards))


def with_an_early_leaf() -> Node:
    return root_of(leaf(1), inner(leaf(0), leaf(1)))  # V(1) = 1/2, V() = (1 + 1/2) / 2 = 3/4


# --- tree rules by hand --------------------------------------------------------------------------


def test_mean_rule_worked_by_hand():
    assert list(advantages(group(1, 0, 0, 0.5), mean).values()) == [0.625, -0.375, -0.375, 0.125]  # V() = 3/8


def test_leave_one_out_is_four_thirds_of_the_mean_rule_among_four():
    found = advantages(group(1, 0, 0, 0.5), leave_one_out)
    assert list(found.values()) == pytest.approx([0.625 * 4 / 3, -0.5, -0.5, 0.5 / 3])  # 1 - (0 + 0 + 1/2) / 3 = 5/6


def test_std_rule_worked_by_hand():
    # deviations 5/8, -3/8, -3/8, 1/8; variance (25 + 9 + 9 + 1) / 64 / 4 = 11/64
    sigma = math.sqrt(11) / 8
    found = advantages(group(1, 0, 0, 0.5), std)
    assert list(found.values()) == pytest.approx([0.625 / sigma, -0.375 / sigma, -0.375 / sigma, 0.125 / sigma])


def test_global_local_is_twice_the_mean_rule_below_the_root():
    assert list(advantages(group(1, 0, 0, 0.5), global_local).values()) == [1.25, -0.75, -0.75, 0.25]


def test_shrinkage_worked_by_hand():
    # s = 1. W(leaf) = (1 * V + 1 * 3/8) / 2, so A is half the mean rule's.
    assert list(advantages(group(1, 0, 0, 0.5), shrinkage(1)).values()) == [0.3125, -0.1875, -0.1875, 0.0625]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (mean, {(0,): 0.25, (1,): -0.25, (1, 0): -0.5, (1, 1): 0.5}),
        (leave_one_out, {(0,): 0.5, (1,): -0.5, (1, 0): -1.0, (1, 1): 1.0}),
        (std, {(0,): 1.0, (1,): -1.0, (1, 0): -1.0, (1, 1): 1.0}),
        (global_local, {(0,): 0.5, (1,): -0.5, (1, 0): -0.75 - 0.5, (1, 1): 0.25 + 0.5}),
        # s = 2: W() = 3/4; W(0) = (1 + 2 * 3/4) / 3 = 5/6; W(1) = (2 * 1/2 + 2 * 3/4) / 4 = 5/8;
        # W(1,0) = (0 + 2 * 5/8) / 3 = 5/12; W(1,1) = (1 + 2 * 5/8) / 3 = 3/4
        (shrinkage(2), {(0,): 5 / 6 - 3 / 4, (1,): 5 / 8 - 3 / 4, (1, 0): 5 / 12 - 5 / 8, (1, 1): 3 / 4 - 5 / 8}),
    ],
    ids=["mean", "leave_one_out", "std", "global_local", "shrinkage"],
)
def test_an_early_leaf_is_one_sibling_under_every_rule(rule, expected):
    assert advantages(with_an_early_leaf(), rule) == pytest.approx(expected, abs=1e-6)


# --- siblings that are equal, or absent ----------------------------------------------------------


@LOCAL_RULES
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1.0])
def test_equal_siblings_earn_exactly_nothing_under_a_local_rule(rule, reward):
    root = root_of(*(inner(leaf(reward), leaf(reward), leaf(reward)) for _ in range(3)))
    assert set(advantages(root, rule).values()) == {0.0}


@pytest.mark.parametrize("rule", [*TREE_RULES.values(), shrinkage(1.5)])
def test_where_all_responses_are_equal_no_rule_gives_credit(rule):
    root = root_of(leaf(0.1), inner(leaf(0.1), leaf(0.1), leaf(0.1)), inner(leaf(0.1)))
    assert set(advantages(root, rule).values()) == {0.0}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(global_local, 1 - 1 / 2), (shrinkage(2), (1 + 2 * 3 / 4) / 3 - 3 / 4)],  # W(0) = (2 * 1 + 2 * 1/2) / 4 = 3/4
    ids=["global_local", "shrinkage"],
)
def test_a_rule_that_looks_above_the_parent_credits_equal_siblings(rule, expected):
    root = root_of(inner(leaf(1), leaf(1)), leaf(0))  # V(0) = 1, V() = 1/2
    assert advantages(root, rule)[(0, 0)] == pytest.approx(expected)


@LOCAL_RULES
def test_an_only_child_earns_nothing_under_a_local_rule(rule):
    found = advantages(root_of(inner(leaf(1)), leaf(0)), rule)
    assert found[(0, 0)] == 0.0 and found[(0,)] > 0


# --- the same formulas elsewhere -----------------------------------------------------------------


rewards = st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=2, max_size=8)


@given(rewards)
def test_std_rule_on_a_group_is_grpo(group_rewards):
    center, sigma = statistics.mean(group_rewards), statistics.pstdev(group_rewards)
    expected = [(reward - center) / (sigma + STD_EPSILON) for reward in group_rewards]
    assert list(advantages(group(*group_rewards), std).values()) == pytest.approx(expected, abs=1e-9)


@given(rewards)
def test_leave_one_out_on_a_group_is_rloo(group_rewards):
    expected = [r - statistics.mean(group_rewards[:i] + group_rewards[i + 1 :]) for i, r in enumerate(group_rewards)]
    assert list(advantages(group(*group_rewards), leave_one_out).values()) == pytest.approx(expected, abs=1e-9)


# --- random trees against exact recursion --------------------------------------------------------


leaves = st.integers(0, 8).map(lambda n: leaf(n / 8))
lower = st.one_of(leaves, st.lists(leaves, min_size=1, max_size=3).map(lambda c: inner(*c)))
upper = st.one_of(lower, st.lists(lower, min_size=1, max_size=3).map(lambda c: inner(*c)))
random_trees = st.lists(upper, min_size=1, max_size=4).map(lambda c: root_of(*c))


def rewards_under(node: Node) -> Iterator[Fraction]:
    if not node.children:
        yield Fraction(node.reward)
    for child in node.children:
        yield from rewards_under(child)


def worth(node: Node) -> Fraction:
    """V, from the leaves' rewards alone: no value that the code computed is looked at."""
    return sum(map(worth, node.children), Fraction(0)) / len(node.children) if node.children else Fraction(node.reward)


def average(numbers: list[Fraction]) -> Fraction:
    return sum(numbers, Fraction(0)) / max(len(numbers), 1)


def brute_force(root: Node, formula) -> dict[Path, float]:
    """Walks down hand in hand: `formula(child, siblings, parent, state)` -> (advantage, state below the child)."""
    found: dict[Path, float] = {}

    def descend(node: Node, path: Path, state) -> None:
        for index, child in enumerate(node.children):
            others = [worth(other) for i, other in enumerate(node.children) if i != index]
            advantage, below = formula(child, others, node, state)
            found[(*path, index)] = float(advantage)
            descend(child, (*path, index), below)

    descend(root, (), worth(root))
    return found


def exact_std(child, others, parent, state):
    everyone = [worth(child), *others]
    spread = math.sqrt(average([v * v for v in everyone]) - average(everyone) ** 2)
    return float(worth(child) - average(everyone)) / (spread + 1e-8), state


def exact_shrinkage(strength: int):
    """`strength` pretended responses worth what the parent is, beside the real ones through the child."""

    def formula(child, others, parent, state):
        real = len(list(rewards_under(child)))
        pulled = average([worth(child)] * real + [state] * strength)
        return pulled - state, pulled

    return formula


FORMULAS = {
    "mean": (mean, lambda c, others, p, s: (worth(c) - average([worth(c), *others]), s)),
    "leave_one_out": (leave_one_out, lambda c, others, p, s: ((worth(c) - average(others)) if others else 0, s)),
    "std": (std, exact_std),
    "global_local": (global_local, lambda c, others, p, s: (2 * worth(c) - worth(p) - s, s)),
    "shrinkage": (shrinkage(3), exact_shrinkage(3)),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(root=random_trees)
def test_every_rule_equals_brute_force(name, root):
    rule, formula = FORMULAS[name]
    expected = brute_force(root, formula)
    found = advantages(root, rule)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert {path for path, a in found.items() if a == 0.0} == {path for path, a in expected.items() if abs(a) < 1e-9}


@given(random_trees)
def test_shrinkage_of_strength_zero_is_the_mean_rule(root):
    assert advantages(root, shrinkage(0)) == pytest.approx(advantages(root, mean), abs=1e-12)


@given(random_trees)
def test_shrinkage_without_bound_leaves_nothing(root):
    assert max(map(abs, advantages(root, shrinkage(1e6)).values())) < 1e-4
    assert set(advantages(root, shrinkage(1e15)).values()) == {0.0}


def test_shrinkage_moves_a_value_with_many_responses_behind_it_less():
    root = root_of(inner(*(leaf(1) for _ in range(8))), inner(leaf(0)))  # V = 1 from eight, V = 0 from one
    found = advantages(root, shrinkage(1))
    assert found[(0,)] == pytest.approx(0.5 * 8 / 9) and found[(1,)] == pytest.approx(-0.5 * 1 / 2)


# --- chains --------------------------------------------------------------------------------------


def test_difference_worked_by_hand():
    assert difference([0.4, 0.7], 1.0) == pytest.approx([0.3, 0.3])
    assert difference([0.5], 0.0) == [-0.5]


def test_difference_gives_exact_zeros_for_equal_values():
    assert difference([0.1 + 0.2, 0.3, 0.3], 0.3) == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_differences_add_up_to_the_reward_less_the_first_value(values, reward):
    assert sum(difference(values, reward)) == pytest.approx(reward - values[0], abs=1e-7)


# --- names ---------------------------------------------------------------------------------------


def sign_only(path) -> float:
    return math.copysign(1.0, path[-1].value - path[-2].value)


def test_rules_are_found_by_name():
    assert all(tree_rule(name, 0.0) is rule for name, rule in TREE_RULES.items())
    assert chain_rule("difference") is difference


def test_the_shrinkage_rule_takes_the_strength_of_the_settings():
    root = with_an_early_leaf()
    assert advantages(root, tree_rule("shrinkage", 2.0)) == advantages(root, shrinkage(2.0))


def test_a_rule_of_your_own_is_found_by_module_and_function():
    rule = tree_rule(f"{__name__}:sign_only", 0.0)
    assert list(advantages(group(1, 0, 0), rule).values()) == [1.0, -1.0, -1.0]


@pytest.mark.parametrize("known", [TREE_RULES, CHAIN_RULES])
def test_an_unknown_name_is_answered_with_the_names_there_are(known):
    with pytest.raises(UnknownRule, match="choose one of " + ", ".join(known)):
        find_rule("rloo", known)


@pytest.mark.parametrize("name", ["no_such_module_of_mine:rule", f"{__name__}:no_such_rule"])
def test_what_cannot_be_imported_says_why(name):
    with pytest.raises(UnknownRule, match="cannot be imported .*no_such"):
        find_rule(name, TREE_RULES)


@pytest.mark.parametrize("name", ["", ":", "math:", ":function", ".credit:mean"])
def test_half_a_name_is_no_rule(name):
    with pytest.raises(UnknownRule):
        find_rule(name, TREE_RULES)
