"""Expected tokens: by hand, and against real rollouts of a policy whose lengths are known."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from types import SimpleNamespace

import pytest

from recipe.spo.bounds import chain_bounds, tree_bounds
from recipe.spo.cutting import chain_partition
from recipe.spo.expected import NotExpected, expected_chain_tokens, expected_tokens, expected_tree_tokens
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import ChainSettings, TreeSettings
from recipe.spo.stopping import after_improbable_tokens
from recipe.spo.tree import walk
from tests.unit.test_grow_tree import PROMPT
from tests.unit.test_schedule import PAPER, scheduled

EOS, BUDGET, LEAST, QUESTIONS = 0, 30, 6, 200
IMPROBABLE = 0.4


class Policy:
    """Ends with chance 0.15 a token once LEAST have gone by, so that lengths are far from memoryless."""

    def __init__(self):
        self.random = random.Random(5)

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        ids, used = [], len(prompt_ids) - len(PROMPT)
        while len(ids) < sampling_params["max_tokens"] and EOS not in ids:
            end = used + len(ids) >= LEAST and self.random.random() < 0.15
            ids.append(EOS if end else self.random.randrange(1, 90))
        log_probs = [math.log(0.5) if self.random.random() < IMPROBABLE else 0.0 for _ in ids]
        fields = {"global_steps": 3, "num_cached_tokens": 0}
        return SimpleNamespace(token_ids=ids, log_probs=log_probs, stop_reason="completed", extra_fields=fields)


def lengths() -> list[int]:
    draw = random.Random(6)
    sample = []
    for _ in range(20000):
        length = LEAST + 1
        while draw.random() >= 0.15:
            length += 1
        sample.append(min(length, BUDGET))
    return sorted(sample)


LENGTHS = lengths()


def sampler() -> Sampler:
    return Sampler(Policy(), "question", {}, frozenset({EOS}))


def within_three_errors(found: list[int], expected: float) -> bool:
    return abs(statistics.fmean(found) - expected) < 3 * statistics.stdev(found) / len(found) ** 0.5


def test_by_hand():
    tree = TreeSettings((2, 3), 4)
    # Lengths 3 and 9: 2 * (3 + 4) / 2 tokens of the first level, 6 * (0 + 5) / 2 of the second.
    assert expected_tree_tokens(tree, [3, 9], 20) == pytest.approx(7 + 15)
    chain = ChainSettings(2, 3, "fixed_length", segment_length=4)
    # Cuts 0; 0, 4, 8. From 4 remain 5, from 8 remains 1: 2 * (6 + 3 * (5 + 1) / 2) + 3 * 6.
    assert expected_chain_tokens(chain, [3, 9]) == 2 * (6 + 9) + 18
    parts = ChainSettings(1, 1, "equal_parts", parts=2)
    # Cuts of 2: 1, of 6: 3. From 1 remain (1 + 5) / 2, from 3 remain 3: 4 + (3 + 3) / 2 + 4.
    assert expected_chain_tokens(parts, [2, 6]) == 4 + 3 + 4
    lines = ChainSettings(1, 2, "lines", max_steps=2)
    assert expected_chain_tokens(lines, [9], segment_tokens=3) == 9 + 2 * 6 + 2 * 9


def bound(tree: TreeSettings) -> int:
    return tree_bounds(tree, BUDGET).generated_tokens


def test_responses_that_never_end_generate_the_bound():
    for tree in (TreeSettings((6, 6, 6), 4), TreeSettings((5,), ())):
        assert expected_tree_tokens(tree, [BUDGET], BUDGET) == pytest.approx(bound(tree))
    chain = ChainSettings(4, 3, "fixed_length", segment_length=7)
    assert expected_chain_tokens(chain, [BUDGET]) == chain_bounds(chain, BUDGET).generated_tokens
    every = ChainSettings(4, 3, "low_probability", cut_interval=1)  # a cut before every token
    tokens = expected_chain_tokens(every, [BUDGET], segment_tokens=1)
    assert tokens == pytest.approx(chain_bounds(every, BUDGET).generated_tokens)


@pytest.mark.parametrize("interval", [None, 1, 2])
def test_sampled_trees(interval):
    partition = "fixed_length" if interval is None else "low_probability"
    shape = TreeSettings((3, 2, 2), (8, 5), partition, interval)
    stops = {} if interval is None else {"stop": after_improbable_tokens(0.9, interval)}

    async def grow() -> list[int]:
        roots = [await grow_tree(sampler_, PROMPT, shape, BUDGET, **stops) for _ in range(QUESTIONS)]
        return [sum(len(visit.node.token_ids) for visit in walk(root)) for root in roots]

    sampler_ = sampler()
    found = asyncio.run(grow())
    expected = expected_tree_tokens(shape, LENGTHS, BUDGET, interval and interval / IMPROBABLE)
    assert within_three_errors(found, expected)


@pytest.mark.parametrize(
    "shape",
    [
        ChainSettings(3, 2, "fixed_length", segment_length=7),
        ChainSettings(3, 2, "equal_parts", parts=3),
        ChainSettings(3, 2, "low_probability", cut_interval=1),
        ChainSettings(3, 2, "low_probability", cut_interval=3),
    ],
    ids=lambda shape: f"{shape.partition}-{shape.cut_interval}",
)
def test_sampled_chains(shape):
    partition = chain_partition(shape, 0.9, decode=str)

    async def grow() -> list[int]:
        found = []
        for _ in range(QUESTIONS):
            rollout = await grow_chain(sampler_, PROMPT, shape, partition, BUDGET)
            nodes = [node for group in rollout.continuations.values() for node in group]
            nodes += [trajectory.response for trajectory in rollout.trajectories]
            found.append(sum(len(node.token_ids) for node in nodes))
        return found

    sampler_ = sampler()
    found = asyncio.run(grow())
    even = shape.cut_interval and shape.cut_interval / IMPROBABLE
    assert within_three_errors(found, expected_chain_tokens(shape, LENGTHS, even))


def test_the_stage_decides_on_budget_and_segments():
    spo = scheduled(PAPER)
    early, late = (expected_tokens(spo, [5000], budget, step, None) for budget, step in ((1948, 1), (3584, 401)))
    assert early == pytest.approx(42 * 600 + 216 * 748)
    assert late == pytest.approx(42 * 1111 + 216 * (3584 - 2222))


def test_what_is_missing_is_named():
    with pytest.raises(NotExpected, match=r"partition lines .* algorithm\.spo\.expect\.segment_tokens"):
        expected_chain_tokens(ChainSettings(1, 1, "lines"), [5])
    with pytest.raises(NotExpected, match="partition low_probability"):
        expected_tree_tokens(TreeSettings((2, 2), 5, "low_probability", 2), [5], 20)
    with pytest.raises(NotExpected, match="no response lengths"):
        expected_tokens(scheduled(None), [], 20, 1, None)
