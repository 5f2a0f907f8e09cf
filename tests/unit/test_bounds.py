"""Token bounds: by hand, against brute force, and reached by real rollouts of a policy that never ends."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from recipe.spo.bounds import QuestionBounds, chain_bounds, most_trained, question_bounds, tree_bounds
from recipe.spo.cutting import chain_partition
from recipe.spo.metrics import chain_counts
from recipe.spo.partition import equal_cuts, low_probability_cuts
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import ChainSettings, ReplaySettings, TreeSettings
from recipe.spo.stopping import after_improbable_tokens
from recipe.spo.tree import walk
from tests.unit.test_grow_tree import PROMPT, ScriptedClient
from tests.unit.test_schedule import PAPER, scheduled


def test_the_papers_trees_by_hand():
    two_k = tree_bounds(TreeSettings((6, 6, 6), 600), 1948)
    assert two_k.generated_tokens == 6 * 600 + 36 * 600 + 216 * 748
    assert (two_k.responses, two_k.samples, two_k.rows) == (216, 258, 258)
    assert two_k.row_lengths == ((216, 748), (6, 600), (36, 600))
    assert two_k.tokens_of_longest(220) == 216 * 748 + 4 * 600
    assert two_k.tokens_of_longest(258) == two_k.row_tokens == two_k.generated_tokens


def test_a_group_is_its_responses():
    group = question_bounds(scheduled(None, of="grpo"), 100)
    assert (group.responses, group.rows, group.generated_tokens, group.row_tokens) == (8, 8, 800, 800)


def test_the_stage_decides_on_the_segments():
    spo = scheduled(PAPER)
    assert question_bounds(spo, 1948, step=400).row_lengths[-1] == (36, 600)
    assert question_bounds(spo, 3584, step=401).row_lengths[0] == (216, 3584 - 2222)


def test_a_chain_by_hand():
    # T = 2, K = 3, R = 10, cuts 0, 4, 8: 2 * 10 + 3 * 10 + 2 * 3 * (6 + 2)
    bounds = chain_bounds(ChainSettings(2, 3, "fixed_length", segment_length=4), 10)
    assert bounds.generated_tokens == 20 + 30 + 48
    assert bounds.responses == 2 + 3 * (1 + 2 * 2)
    assert (bounds.rows, bounds.row_tokens, bounds.tokens_of_longest(1)) == (2, 20, 10)


def test_segments_that_fill_the_budget_are_refused():
    with pytest.raises(ValueError, match=r"leave nothing of 20"):
        tree_bounds(TreeSettings((2, 2), 20), 20)


def dearest_tree(shape: TreeSettings, budget: int, depth: int = 0, used: int = 0) -> int:
    """The most tokens under a node, by trying every length that the rule allows."""
    if depth == shape.depth or used == budget:
        return 0
    most = shape.segment_budget(depth, used, budget)
    lengths = [most]
    if depth < shape.depth - 1 and shape.partition != "fixed_length":
        least = 1 if shape.partition == "lines" else shape.cut_interval
        lengths = range(min(least, most), most + 1)
    return shape.branch_factors[depth] * max(n + dearest_tree(shape, budget, depth + 1, used + n) for n in lengths)


@pytest.mark.parametrize("factors", [(2, 3, 2), (3, 1, 1), (1, 4), (5,)])
@pytest.mark.parametrize(("partition", "interval"), [("fixed_length", None), ("lines", None), ("low_probability", 3)])
def test_a_tree_equals_brute_force(factors, partition, interval):
    lengths = (4, 2)[: len(factors) - 1]
    shape = TreeSettings(factors, lengths, partition, interval)
    assert tree_bounds(shape, 9).generated_tokens == dearest_tree(shape, 9)


def chains_of(shape: ChainSettings, budget: int):
    """Cuts of every possible response, with its length."""
    for length in range(1, budget + 1):
        if shape.partition == "equal_parts":
            yield length, equal_cuts(length, shape.parts)
        else:
            for pattern in itertools.product((math.log(0.5), 0.0), repeat=length):
                yield length, low_probability_cuts(pattern, 0.9, shape.cut_interval)


@pytest.mark.parametrize(
    "shape",
    [
        *(ChainSettings(2, k, "low_probability", cut_interval=n) for k in (1, 2) for n in (1, 2, 3)),
        *(ChainSettings(2, k, "equal_parts", parts=n) for k in (1, 2) for n in (2, 4)),
    ],
    ids=lambda shape: f"{shape.partition}-{shape.continuations}-{shape.cut_interval or shape.parts}",
)
def test_a_chain_equals_brute_force(shape):
    budget, k, tokens, samples = 5, shape.continuations, [], []
    for pair in itertools.combinations_with_replacement(list(chains_of(shape, budget)), 2):
        # Responses differ from their first token on: only the prompt's state is shared.
        states = [cut for _, cuts in pair for cut in cuts if cut] + [0] * any(0 in cuts for _, cuts in pair)
        tokens.append(sum(length for length, _ in pair) + k * sum(budget - cut for cut in states))
        samples.append(2 + k * len(states))
    bounds = chain_bounds(shape, budget)
    assert (bounds.generated_tokens, bounds.samples) == (max(tokens), max(samples))


def sampler() -> Sampler:
    return Sampler(ScriptedClient(), "question", {}, frozenset({0}))


def test_a_tree_that_never_ends_generates_the_bound():
    for interval in (None, 2):
        partition = "fixed_length" if interval is None else "low_probability"
        shape = TreeSettings((3, 2, 2), (4, 5), partition, interval)
        # The scripted tokens all have p = exp(-0.5) = 0.61.
        stops = {} if interval is None else {"stop": after_improbable_tokens(0.9, interval)}
        root = asyncio.run(grow_tree(sampler(), PROMPT, shape, 20, **stops))
        generated = sum(len(visit.node.token_ids) for visit in walk(root))
        assert generated == tree_bounds(shape, 20).generated_tokens


def test_a_chain_that_never_ends_generates_the_bound():
    shape = ChainSettings(3, 2, "low_probability", cut_interval=1)
    partition = chain_partition(shape, 0.9, decode=str)
    rollout = asyncio.run(grow_chain(sampler(), PROMPT, shape, partition, 12))
    for node in (sample for group in rollout.continuations.values() for sample in group):
        node.reward = 0.0
    for trajectory in rollout.trajectories:
        trajectory.response.reward = 0.0
    assert chain_counts(rollout)["generated_tokens"] == chain_bounds(shape, 12).generated_tokens


def test_unknown_cuts_are_bounded_by_a_cut_before_every_token():
    lines = chain_bounds(ChainSettings(2, 3, "lines", max_steps=2), 10)
    assert lines.generated_tokens == 2 * 10 + 3 * (10 + 2 * 9)
    own = chain_bounds(ChainSettings(1, 1, "my.module:rule"), 4)
    assert own.generated_tokens == 4 + (4 + 3 + 2 + 1)


ROWS = QuestionBounds(3, 7, 60, ((2, 10), (5, 4)), 40)  # two rows of 10 tokens, five of 4


@pytest.mark.parametrize("a_step", [None, 1, 3, 5, 100])
@pytest.mark.parametrize("a_question", [None, 1, 3, 50])
@pytest.mark.parametrize("max_age", [0, 1])
def test_trained_rows_equal_brute_force(a_step, a_question, max_age):
    questions = 2 * (max_age + 1)
    pool = sorted(([10] * 2 + [4] * 5)[:a_question] * questions, reverse=True)[:a_step]
    expected = (len(pool), sum(pool))
    assert most_trained(ROWS, 2, ReplaySettings(a_step, a_question, max_age)) == expected


def test_rows_of_early_ended_segments_cannot_all_be_long():
    bounds = tree_bounds(TreeSettings((2, 2), 30, "lines"), 40)
    # One token, then 39; but a single inner segment may have 30.
    assert bounds.row_lengths == ((4, 39), (2, 30)) and bounds.row_tokens == 2 * 1 + 4 * 39
    assert bounds.tokens_of_longest(6) == bounds.row_tokens
