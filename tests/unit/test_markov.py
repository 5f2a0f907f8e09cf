"""Estimates against the truth: a policy that is a small Markov chain, whose exact values are a short recursion.

Trees and chains are sampled with the real code from a client that plays the policy. Bounds are three
standard errors of fixed seeds; over other seeds they hold as often as they should.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import accumulate, product
from types import SimpleNamespace

import pytest

from recipe.spo.advantage import tree_samples
from recipe.spo.chain import ChainRollout
from recipe.spo.credit import leave_one_out, mean
from recipe.spo.partition import low_probability_cuts
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import ChainSettings, TreeSettings
from recipe.spo.stopping import after_improbable_tokens, at_full_length
from recipe.spo.tree import Node, compute_values, endings, walk

EOS, A, B, C, PROMPT = range(5)
#: Probability of the next token by the last one.
POLICY = {
    PROMPT: {A: 0.5, B: 0.3, C: 0.16, EOS: 0.04},
    A: {A: 0.60, B: 0.20, C: 0.1, EOS: 0.10},
    B: {A: 0.05, B: 0.35, C: 0.4, EOS: 0.20},
    C: {A: 0.30, B: 0.10, C: 0.3, EOS: 0.30},
}
RIGHT = {B, C}  # a response that ends after one of these earns 1
LENGTH = 9  # tokens of a response; one that has not ended by then earns 0
IMPROBABLE = 0.25


@cache
def worth(last: int, left: int) -> float:
    """Expected reward from a state: the last token, and the tokens that are left."""
    if left == 0:
        return 0.0
    return sum(p * ((last in RIGHT) if token == EOS else worth(token, left - 1)) for token, p in POLICY[last].items())


def reward(ids: tuple[int, ...]) -> float:
    return float(ids[-1] == EOS and (PROMPT, *ids)[-2] in RIGHT)


class Policy:
    """A client that samples from the chain and reports true log-probabilities."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.table = {
            last: (list(row), list(accumulate(row.values())), {t: math.log(p) for t, p in row.items()})
            for last, row in POLICY.items()
        }

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        ids, log_probs, last = [], [], prompt_ids[-1]
        while len(ids) < sampling_params["max_tokens"] and last != EOS:
            tokens, cumulative, logs = self.table[last]
            (last,) = self.random.choices(tokens, cum_weights=cumulative)
            ids.append(last)
            log_probs.append(logs[last])
        return SimpleNamespace(token_ids=ids, log_probs=log_probs, stop_reason="completed", extra_fields={})


def sample_many(seed: int, number: int, grow) -> list:
    """Grow so many trees or chains, ungraded."""
    sampler = Sampler(Policy(seed), "all", {}, frozenset({EOS}))

    async def everything():
        return [await grow(sampler) for _ in range(number)]

    return asyncio.run(everything())


def assert_unbiased(estimates: dict, truth, least: int = 100) -> None:
    """Every group of estimates that is large enough has its true mean, within three standard errors."""
    groups = {state: found for state, found in estimates.items() if len(found) >= least}
    assert groups
    for state, found in groups.items():
        error = statistics.stdev(found) / math.sqrt(len(found))
        assert abs(statistics.fmean(found) - truth(state)) < 3 * error + 1e-12, state


def assert_variance(found: list[float], variance: float) -> None:
    center = statistics.fmean(found)
    fourth = statistics.fmean((x - center) ** 4 for x in found)
    error = math.sqrt((fourth - variance**2) / len(found))
    assert abs(statistics.variance(found) - variance) < 3 * error


# --- trees ---------------------------------------------------------------------------------------

NEVER, AT_FIRST = at_full_length, after_improbable_tokens(IMPROBABLE, 1)
FORESTS = {
    "fixed_length": (TreeSettings((2, 3), 3), NEVER),
    "low_probability": (TreeSettings((2, 3), 4), AT_FIRST),
    "low_probability, three levels": (TreeSettings((2, 2, 2), (5, 2)), AT_FIRST),
}


def grow_forest(name: str, seed: int, number: int = 2500) -> list[Node]:
    shape, stop = FORESTS[name]
    roots = sample_many(seed, number, lambda sampler: grow_tree(sampler, [PROMPT], shape, LENGTH, stop))
    for root in roots:
        for ids, node in endings(root):
            node.reward = reward(ids)
        compute_values(root)
    return roots


@pytest.fixture(scope="module", params=FORESTS)
def forest(request) -> tuple[str, list[Node]]:
    return request.param, grow_forest(request.param, seed=1)


def state_of(response_ids: tuple[int, ...]) -> tuple[int, int]:
    return (PROMPT, *response_ids)[-1], LENGTH - len(response_ids)


def test_a_forest_is_more_than_ten_thousand_draws(forest):
    _, roots = forest
    assert sum(root.leaf_count for root in roots) > 10_000


def test_the_value_of_the_root_is_unbiased(forest):
    _, roots = forest
    assert_unbiased({(PROMPT, LENGTH): [root.value for root in roots]}, lambda state: worth(*state))


def test_the_value_of_every_inner_state_is_unbiased_given_the_state(forest):
    _, roots = forest
    estimates = defaultdict(list)
    for visit in (visit for root in roots for visit in walk(root)):
        if visit.parent is not None and not visit.node.is_leaf:
            estimates[visit.depth, *state_of(visit.response_ids)].append(visit.node.value)
    assert_unbiased(estimates, lambda state: worth(*state[1:]))


@pytest.mark.parametrize(("rule", "scale"), [(leave_one_out, 1.0), (mean, 1 / 2)])
def test_advantages_given_the_segment_are_differences_of_true_values(forest, rule, scale):
    """Without bias if siblings alone are the baseline; (n - 1) / n of it with the segment among them."""
    _, roots = forest
    estimates = defaultdict(list)
    for sample in (next(tree_samples(root, rule)) for root in roots):  # the first of n = 2 children
        early = reward(sample.token_ids) if EOS in sample.token_ids else None
        estimates[*state_of(sample.token_ids), early].append(sample.advantages[0])

    def truth(state):
        last, left, early = state
        return scale * ((worth(last, left) if early is None else early) - worth(PROMPT, LENGTH))

    assert_unbiased(estimates, truth)


def first_segments(name: str) -> Iterator[tuple[float, float]]:
    """Every first segment there can be: its probability, and the true value of the state at its end."""
    shape, stop = FORESTS[name]
    stack = [(1.0, ())]
    while stack:
        chance, ids = stack.pop()
        if ids[-1:] == (EOS,):
            yield chance, reward(ids)
            continue
        improbable = any(POLICY[a][b] < IMPROBABLE for a, b in zip((PROMPT, *ids), ids, strict=False))
        if len(ids) == shape.segment_lengths[0] or (stop is not NEVER and improbable):
            yield chance, worth(*state_of(ids))
            continue
        stack += [(chance * p, (*ids, token)) for token, p in POLICY[state_of(ids)[0]].items()]


@pytest.mark.parametrize("name", FORESTS)
def test_the_state_at_the_end_of_a_segment_is_worth_what_the_root_is(name):
    """V(parent) = E V(child), exactly: what makes the mean of the children unbiased."""
    segments = list(first_segments(name))
    assert sum(chance for chance, _ in segments) == pytest.approx(1.0)
    assert sum(chance * value for chance, value in segments) == pytest.approx(worth(PROMPT, LENGTH))


@pytest.mark.parametrize("forest", ["fixed_length", "low_probability"], indirect=True)
def test_the_variance_of_the_root_of_two_levels_is_the_total_variance(forest):
    name, roots = forest
    first, second = FORESTS[name][0].branch_factors
    segments = list(first_segments(name))
    between = sum(chance * (value - worth(PROMPT, LENGTH)) ** 2 for chance, value in segments)
    within = sum(chance * value * (1 - value) for chance, value in segments)
    assert_variance([root.value for root in roots], (between + within / second) / first)


# --- chains --------------------------------------------------------------------------------------

K = 4


@pytest.fixture(scope="module")
def chains() -> list[ChainRollout]:
    def partition(response: Node) -> list[int]:
        return sorted({0, *low_probability_cuts(response.log_probs, IMPROBABLE, 1)})

    shape = ChainSettings(trajectories=2, continuations=K, partition="low_probability", cut_interval=1)
    rollouts = sample_many(2, 1200, lambda sampler: grow_chain(sampler, [PROMPT], shape, partition, LENGTH))
    for ids, node in (ending for rollout in rollouts for ending in rollout.endings()):
        node.reward = reward(ids)
    return rollouts


def values_by_state(chains: list[ChainRollout]) -> dict[tuple[int, int], list[float]]:
    estimates = defaultdict(list)
    for ids, value in (item for rollout in chains for item in rollout.values().items()):
        estimates[state_of(ids)].append(value)
    return estimates


def test_the_value_of_every_cut_is_unbiased_given_the_state(chains):
    estimates = values_by_state(chains)
    assert sum(map(len, estimates.values())) * K > 10_000
    assert_unbiased(estimates, lambda state: worth(*state))


def test_the_variance_of_a_cuts_value_is_that_of_k_coins(chains):
    estimates = {state: found for state, found in values_by_state(chains).items() if len(found) >= 200}
    assert len(estimates) >= 3
    for state, found in estimates.items():
        assert_variance(found, worth(*state) * (1 - worth(*state)) / K)


def test_the_rest_of_the_response_itself_would_be_no_fair_draw(chains):
    """Where a cut stands was chosen by the improbable token behind it; hence the fresh continuations."""
    errors = [
        trajectory.response.reward - worth(*state_of(trajectory.state(cut)))
        for rollout in chains
        for trajectory in rollout.trajectories
        for cut in trajectory.cuts
        if cut > 0 or POLICY[PROMPT][trajectory.response.token_ids[0]] < IMPROBABLE
    ]
    assert abs(statistics.fmean(errors)) > 5 * statistics.stdev(errors) / math.sqrt(len(errors))


# --- why a tree's segment ends after the improbable token, and a chain's before it ---------------

GOOD, BAD, STEP = 5, 6, 7
TWO_STATES = {GOOD: Fraction(9, 10), BAD: Fraction(1, 10)}  # after one certain STEP; BAD is improbable, and earns 0


class Decided:
    """The response is STEP, then what was decided for this request."""

    def __init__(self, decisions: tuple[int, ...]):
        self.decisions = list(decisions)

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        end = self.decisions.pop(0)
        ids = [end] if prompt_ids[-1] == STEP else [STEP, end]
        log_probs = [math.log(TWO_STATES.get(token, 1)) for token in ids]
        return SimpleNamespace(token_ids=ids, log_probs=log_probs, stop_reason="completed", extra_fields={})


def expected_root_value(stop) -> Fraction:
    """Of a tree of one child and two grandchildren, exactly: the sum over all that can be decided."""
    expected = Fraction(0)
    for decisions in product(TWO_STATES, repeat=3):
        sampler = Sampler(Decided(decisions), "tree", {}, frozenset({GOOD, BAD}))
        root = asyncio.run(grow_tree(sampler, [PROMPT], TreeSettings((1, 2), 2), 3, stop))
        for ids, node in endings(root):
            node.reward = float(ids[-1] == GOOD)
        compute_values(root)
        expected += math.prod(TWO_STATES[decision] for decision in decisions) * Fraction(root.value)
    return expected


def before_improbable_tokens(token_ids, log_probs) -> int | None:
    end = AT_FIRST(token_ids, log_probs)
    return end - 1 if end is not None and end > 1 else None


def test_ending_a_segment_after_the_improbable_token_is_unbiased():
    assert expected_root_value(AT_FIRST) == Fraction(9, 10)
    assert expected_root_value(NEVER) == Fraction(9, 10)


def test_ending_a_segment_before_the_improbable_token_would_be_biased():
    # GOOD follows, 9/10: the segment runs on and is worth 1. BAD follows, 1/10: it ends at STEP, whose children
    # are BAD (sampled already) and a fresh draw worth 9/10: (0 + 9/10) / 2. In all 9/10 + 9/200, not 9/10.
    assert expected_root_value(before_improbable_tokens) == Fraction(9, 10) + Fraction(9, 200)
