"""Expected tokens: by hand, and from responses sampled one by one against real rollouts of the same policy."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.spo.bounds import chain_bounds, tree_bounds
from recipe.spo.cutting import chain_partition
from recipe.spo.expected import NotExpected, Sample, expected_tokens, tree_tokens
from recipe.spo.response_sample import read_sample
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import TreeSettings
from recipe.spo.stopping import after_improbable_tokens, at_full_length
from recipe.spo.tree import Node, walk
from tests.unit.test_grow_tree import PROMPT
from tests.unit.test_schedule import PAPER, scheduled
from tests.unit.test_settings import settings

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


def responses(count: int) -> Sample:
    """Whole responses to one question, one by one."""
    one_by_one = sampler()

    async def draw() -> list[Node]:
        return [await one_by_one.sample(PROMPT, BUDGET, (i,)) for i in range(count)]

    return Sample((tuple(asyncio.run(draw())),), True, True)


def sampler() -> Sampler:
    return Sampler(Policy(), "question", {}, frozenset({EOS}))


def within_three_errors(found: list[int], expected: float) -> bool:
    return abs(statistics.fmean(found) - expected) < 3 * statistics.stdev(found) / len(found) ** 0.5


def made_of(*texts: str) -> Sample:
    """Responses whose tokens are letters; capitals are improbable."""
    nodes = [Node([ord(c) for c in t], [math.log(0.5) if c.isupper() else 0.0 for c in t]) for t in texts]
    return Sample((tuple(nodes),), True, True)


def test_a_tree_by_hand():
    # Responses of 3 and 9 tokens: 2 * (3 + 4) / 2 of the first level, 6 * (0 + 5) / 2 of the second.
    fixed = settings(20, tree={"branch_factors": [2, 3], "segment_length": 4})
    assert expected_tokens(fixed, made_of("aaa", "bbbbbbbbb"), 20, 1) == 7 + 15
    # A segment ends with its first improbable token: after 2 tokens, and after 4 with none: 2 * 3 + 6 * (7 + 5) / 2.
    cut = {"branch_factors": [2, 3], "segment_length": 4, "partition": "low_probability", "cut_interval": 1}
    assert expected_tokens(settings(20, tree=cut), made_of("aAaaaaaaa", "bbbbbbbbb"), 20, 1) == 6 + 36
    assert expected_tokens(fixed, made_of("a" * 99), 9, 1) == 2 * 4 + 6 * 5  # cut off at the budget


def test_a_chain_by_hand():
    chain = {"trajectories": 2, "continuations": 3, "cut_interval": 1}
    # Cuts before C and E of the first, before C and F of the second. "ab" is one state, behind it remain 3 or 4
    # tokens; behind the four of "abCd" 1 or 2, behind "abCdd" 1.
    spo = settings(of="chain", chain=chain)
    assert expected_tokens(spo, made_of("abCdE", "abCddF"), 99, 1) == 5 + 6 + 3 * (3.5 + 1.5 + 1)
    # Two chains of a question count half each. Behind two tokens remain 2, 4 or 1, behind one 3, 5, 1 or 2.
    two, one = (2 + 4 + 1) / 3, (3 + 5 + 1 + 2) / 4
    first, second = 4 + 6 + 3 * two, 2 + 3 + 3 * (one + two)
    found = expected_tokens(spo, made_of("abCd", "abCddd", "aB", "aaB"), 99, 1)
    assert found == pytest.approx((first + second) / 2)


def bound(tree: TreeSettings) -> int:
    return tree_bounds(tree, BUDGET).generated_tokens


def test_responses_that_never_end_generate_the_bound():
    for tree in (TreeSettings((6, 6, 6), 4), TreeSettings((5,), ())):
        assert tree_tokens(tree, Node([1] * BUDGET), BUDGET, at_full_length) == bound(tree)
    fixed = {"partition": "fixed_length", "segment_length": 7, "cut_interval": None}
    spo = settings(of="chain", chain=fixed)
    sample = read_sample(BUDGET, spo.chain.trajectories)
    assert expected_tokens(spo, sample, BUDGET, 1) == chain_bounds(spo.chain, BUDGET).generated_tokens


@pytest.mark.parametrize("interval", [None, 1, 2])
def test_sampled_trees(interval):
    partition = "fixed_length" if interval is None else "low_probability"
    shape = {"branch_factors": [3, 2, 2], "segment_length": [8, 5], "partition": partition, "cut_interval": interval}
    spo = settings(BUDGET, tree=shape)
    stop = at_full_length if interval is None else after_improbable_tokens(0.9, interval)
    grower = sampler()

    async def grow() -> list[int]:
        roots = [await grow_tree(grower, PROMPT, spo.tree, BUDGET, stop=stop) for _ in range(QUESTIONS)]
        return [sum(len(visit.node.token_ids) for visit in walk(root)) for root in roots]

    found = asyncio.run(grow())
    assert within_three_errors(found, expected_tokens(spo, responses(4000), BUDGET, 1))


@pytest.mark.parametrize(
    "shape",
    [
        {"partition": "fixed_length", "segment_length": 7, "cut_interval": None},
        {"partition": "equal_parts", "parts": 3, "cut_interval": None},
        {"cut_interval": 1},
        {"cut_interval": 3},
    ],
    ids=str,
)
def test_sampled_chains(shape):
    spo = settings(BUDGET, of="chain", chain={"trajectories": 3, "continuations": 2, **shape})
    partition = chain_partition(spo.chain, 0.9, decode=str)
    grower = sampler()

    async def grow() -> list[int]:
        found = []
        for _ in range(QUESTIONS):
            rollout = await grow_chain(grower, PROMPT, spo.chain, partition, BUDGET)
            nodes = [node for group in rollout.continuations.values() for node in group]
            nodes += [trajectory.response for trajectory in rollout.trajectories]
            found.append(sum(len(node.token_ids) for node in nodes))
        return found

    found = asyncio.run(grow())
    assert within_three_errors(found, expected_tokens(spo, responses(3000), BUDGET, 1))


def test_the_stage_decides_on_budget_and_segments():
    spo, sample = scheduled(PAPER), read_sample(5000, 1)
    early, late = (expected_tokens(spo, sample, budget, step) for budget, step in ((1948, 1), (3584, 401)))
    assert early == 42 * 600 + 216 * 748 and late == 42 * 1111 + 216 * (3584 - 2222)


def test_what_is_missing_is_named():
    chain, sample = settings(of="chain"), read_sample(50, 8)
    with pytest.raises(NotExpected, match="low_probability needs the responses' log-probs"):
        expected_tokens(chain, sample, 99, 1)
    lines = settings(of="vineppo")
    with pytest.raises(NotExpected, match="partition lines needs the responses' token ids, and a tokenizer"):
        expected_tokens(lines, sample, 99, 1)
    with pytest.raises(NotExpected, match="a chain has 8 responses a question, the sample only 2"):
        expected_tokens(chain, made_of("aB", "aBc"), 99, 1)


def test_a_file_of_an_evaluation_is_read_by_question(tmp_path):
    rows = {"question_id": ["a", "b", "a"], "token_ids": [[1, 2], [3], [1]], "tokens": [2, 1, 1]}
    pq.write_table(pa.table({**rows, "log_probs": [[-0.5, -1.0], [0.0], [-0.5]]}), tmp_path / "all.parquet")
    sample = read_sample(str(tmp_path / "all.parquet"), 8)
    (first, second), (third,) = sample.groups
    assert (first.token_ids, second.token_ids, third.token_ids) == ([1, 2], [1], [3])
    assert first.log_probs == [-0.5, -1.0]
    pq.write_table(pa.table({"tokens": [4, 2, 3]}), tmp_path / "lengths.parquet")
    assert sample.token_ids and sample.log_probs
    sample = read_sample(str(tmp_path / "lengths.parquet"), 2)
    groups = sample.groups
    assert not sample.token_ids and not sample.log_probs
    assert [[len(node.token_ids) for node in group] for group in groups] == [[4, 2]]
    assert groups[0][0].token_ids[0] != groups[0][1].token_ids[0]
