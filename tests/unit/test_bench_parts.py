"""Parts of the value bench by hand: references, shared continuations, sums, gradients' statistics, packing."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import numpy as np
import pytest

from recipe.spo.bench import accuracy, measuring
from recipe.spo.bench.credited import Segment, chain_credit, tree_credit
from recipe.spo.bench.following import FollowingSampler
from recipe.spo.bench.gradients import view
from recipe.spo.bench.methods import generated_tokens, keep_children, keep_continuations
from recipe.spo.bench.truth import Reference, sampled_states
from recipe.spo.bench.weighting import true_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.credit import TREE_RULES, shrinkage
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import SamplingError
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import ChainSettings, TreeSettings
from recipe.spo.tree import Node
from tests.builders import inner, leaf, root_of
from tests.unit.chain_policy import ChainClient, true_value
from tests.unit.test_markov import EOS, LENGTH, PROMPT, sample_many

PROMPT_IDS, END = (90, 91), 1


class Script:
    """Answers every request with token 7, then the end."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        self.asked.append(tuple(prompt_ids))
        ids = [7, END][: sampling_params["max_tokens"]]
        return SimpleNamespace(token_ids=ids, log_probs=[-1.0] * len(ids), stop_reason="completed", extra_fields={})


def following(client, references, tree=True) -> FollowingSampler:
    return FollowingSampler(client, "q", {}, frozenset({END}), references=references, prompt_length=2, tree=tree)


# --- rollouts through references -----------------------------------------------------------------


def test_a_tree_runs_through_its_references_and_samples_the_rest():
    references = [Node([3, 4, 5, 6, END], [-0.1] * 5, True), Node([8, END], [-0.2] * 2, True)]
    script = Script()
    root = asyncio.run(grow_tree(following(script, references), PROMPT_IDS, TreeSettings((3, 2, 2), 2), 9))
    first, second, third = root.children
    assert (first.token_ids, first.finished) == ([3, 4], False)
    assert first.children[0].token_ids == [5, 6] and first.children[0].children[0].token_ids == [END]
    assert first.children[0].children[0].finished and first.children[1].token_ids == [7, END]
    assert (second.token_ids, second.finished, second.children) == ([8, END], True, [])
    assert third.token_ids == [7, END]
    # sampled: the root's third child, the first child's second, and the grandchild's second
    assert sorted(script.asked) == sorted([PROMPT_IDS, (*PROMPT_IDS, 3, 4), (*PROMPT_IDS, 3, 4, 5, 6)])


def test_an_unfinished_reference_stays_unfinished():
    reference = Node([3, 4, 5], [-0.1] * 3, False)
    root = asyncio.run(grow_tree(following(Script(), [reference]), PROMPT_IDS, TreeSettings((1, 1), 2), 3))
    assert root.children[0].children[0].token_ids == [5] and not root.children[0].children[0].finished


def test_a_chains_continuations_follow_nobody():
    """Not even where (cut, k) is the path of a reference, and the state the beginning of that one."""
    references = [Node([3, 4, END], [-1.0] * 3, True), Node([3, 5, END], [-1.0] * 3, True)]
    shape = ChainSettings(2, 2, "fixed_length", segment_length=1)
    sampler = following(Script(), references, tree=False)
    rollout = asyncio.run(grow_chain(sampler, PROMPT_IDS, shape, lambda response: [0, 1], 9))
    assert [each.response.token_ids for each in rollout.trajectories] == [[3, 4, END], [3, 5, END]]
    assert all(node.token_ids == [7, END] for samples in rollout.continuations.values() for node in samples)


def test_a_context_that_is_not_the_references_is_an_error():
    sampler = following(Script(), [Node([3, END], [-1.0] * 2, True)])
    with pytest.raises(SamplingError, match="not the reference's"):
        asyncio.run(sampler.sample((*PROMPT_IDS, 9), 4, (0, 0)))


def test_a_smaller_size_keeps_the_first_and_costs_what_it_keeps():
    tree = root_of(inner(leaf(1), leaf(0)), inner(leaf(0), leaf(0)), leaf(1))
    assert generated_tokens(tree) == 2 * (1 + 4) + 2
    small = keep_children((2, 1))(tree)
    assert generated_tokens(small) == 2 * (1 + 2) and len(tree.children) == 3 and len(tree.children[0].children) == 2
    response = Node([1, 2, 3], [-1.0] * 3, True, reward=1.0)
    chain = ChainRollout([Trajectory(response, [1])], {(1,): [leaf(0), leaf(1), leaf(1)]})
    assert generated_tokens(keep_continuations(2)(chain)) == 3 + 4 and generated_tokens(chain) == 3 + 6


# --- credit of a reference -----------------------------------------------------------------------


def test_credit_of_a_tree_by_hand():
    def tree():
        return root_of(inner(leaf(1), leaf(0)), leaf(0), leaf(1))

    # V: children 1/2, 0, 1; root 1/2
    path = {name: tree_credit(TREE_RULES[name], "difference")(tree(), 1)[1][0] for name in ("mean", "leave_one_out")}
    assert path["mean"] == [Segment(0, 1, 0.0, 0.5, 0.5), Segment(1, 3, 0.5, 0.5, 1.0)]
    assert path["leave_one_out"] == [Segment(0, 1, 0.0, 0.5, 0.5), Segment(1, 3, 1.0, 0.0, 1.0)]
    # W(child) = (2 * 1/2 + 2 * 1/2) / 4, W(leaf) = (1 * 1 + 2 * 1/2) / 3
    found = tree_credit(shrinkage(2.0), "sum")(tree(), 1)[1][0]
    assert found[1] == Segment(1, 3, pytest.approx(1 / 6), 0.5, pytest.approx(2 / 3))
    samples, (reward,) = tree_credit(lambda path: path[-1].value, "reward")(root_of(leaf(1), leaf(0)), 1)
    assert reward == [Segment(0, 2, 1.0, 1.0, 1.0)] and [each.advantages[0] for each in samples] == [1.0, 0.0]


def test_credit_of_a_chain_by_hand():
    response = Node([1, 2, 3, 4], [-1.0] * 4, True, reward=1.0)
    chain = ChainRollout([Trajectory(response, [1, 2])], {(1,): [leaf(0), leaf(1)], (1, 2): [leaf(0), leaf(0)]})
    samples, found = chain_credit(chain, 1)
    assert found == [[Segment(1, 2, -0.5, 0.5, 0.0), Segment(2, 4, 1.0, 0.0, 1.0)]]
    assert samples[0].advantages == (0.0, -0.5, 1.0, 1.0)
    chain.trajectories[0].cuts = []
    assert chain_credit(chain, 1)[1] == [[]]


# --- the truth -----------------------------------------------------------------------------------


def test_states_share_continuations_until_something_may_be_decided():
    logs = [math.log(p) for p in (0.99, 0.99, 0.5, 0.999, 0.2)]
    assert sampled_states(logs, 0.015) == (0, 2, 3)  # 1 - 0.99^2 > 0.015, 1 - 0.5, and 0.001 is not enough
    assert sampled_states(logs, 0) == (0, 1, 2, 3, 4)
    assert sampled_states(logs, 0.9) == (0,)


@pytest.mark.parametrize("tolerance", [0.45, 0.7])
def test_a_shared_value_is_off_by_no_more_than_the_tolerance(tolerance):
    responses = sample_many(4, 200, lambda sampler: sampler.sample((PROMPT,), LENGTH, (0,)))
    shared = 0
    for node in responses:
        states = sampled_states(node.log_probs, tolerance)
        reference = Reference(node, states, tuple(true_value(node.token_ids[:c]) for c in states), (0.0,) * 99, 2)
        for state in range(len(node.token_ids)):
            shared += state not in states
            assert abs(reference.value(state)[0] - true_value(node.token_ids[:state])) <= tolerance
    assert shared > 50


@pytest.fixture
def reference() -> Reference:
    node = Node([5, 6, 7, 8], [math.log(p) for p in (0.5, 0.99, 0.4, 0.95)], True, reward=1.0)
    return Reference(node, (0, 1, 3), (0.5, 0.25, 0.75), (0.01, 0.02, 0.03), 10)


def test_true_values_and_advantages_by_hand(reference):
    assert [reference.value(c) for c in range(5)] == [
        *((0.5, 0.01), (0.25, 0.02), (0.25, 0.02), (0.75, 0.03), (1.0, 0.0))
    ]
    assert reference.advantage(1, 2) == (0.0, 0.0)  # one sample stands for both: no noise either
    assert reference.advantage(0, 3) == (0.25, 0.04) and reference.advantage(3, 4) == (0.25, 0.03)
    assert Reference.from_json(reference.as_json()) == reference
    assert true_samples([reference])[0].advantages == (-0.25, 0.0, 0.5, 0.25)


# --- sums and statistics -------------------------------------------------------------------------


def test_sums_of_a_reference_by_hand(reference):
    found = [Segment(1, 3, 0.3, 0.2, 0.5), Segment(3, 4, 0.5, 0.5, 1.0)]
    states, worth, missing = measuring.state_sums([reference], [found])
    # states 0, 1, 3: values 0.2 (before the first segment: its own), 0.2, 0.5
    squares = (0.2 - 0.5) ** 2 - 0.01 + (0.2 - 0.25) ** 2 - 0.02 + (0.5 - 0.75) ** 2 - 0.03
    assert accuracy.mean_squared_error(states) == pytest.approx(squares / 3) and missing == 0
    assert worth[0] == pytest.approx(10 * 0.06)
    own, by_bin, _ = measuring.own_sums([reference], [found], 1)
    assert accuracy.bias(own) == pytest.approx(((0.2 - 0.25) + (0.5 - 0.75)) / 2) == accuracy.bias(by_bin[0])
    segments = measuring.segment_sums([reference], [found])
    squares = (0.3 - 0.5) ** 2 - 0.05 + (0.5 - 0.25) ** 2 - 0.03
    assert accuracy.mean_squared_error(segments) == pytest.approx(squares / 2)
    tokens = measuring.token_sums([reference], [found], 0.9)  # tokens 0 and 2 train: A 0 and 0.3
    squares = (0 + 0.25) ** 2 - 0.03 + (0.3 - 0.5) ** 2 - 0.05
    assert tokens[0] == 2 and accuracy.mean_squared_error(tokens) == pytest.approx(squares / 2)
    assert measuring.state_sums([reference], [[]])[2] == 3


def test_the_correlation_is_that_with_the_truth_without_its_noise():
    random = np.random.default_rng(0)
    true = random.normal(size=200_000)
    noise = np.full(len(true), 0.5)
    measured, x = true + random.normal(size=len(true)) * noise**0.5, true + random.normal(size=len(true))
    sums = accuracy.moments(x, measured, noise)
    assert accuracy.correlation(sums) == pytest.approx(1 / 2**0.5, abs=0.01)
    assert accuracy.mean_squared_error(sums) == pytest.approx(1, abs=0.02)
    assert np.isnan(accuracy.correlation(accuracy.moments([1, 1], [0, 1], [0, 0])))


def test_siblings_are_ranked_by_the_value_at_the_end_of_their_segment(monkeypatch):
    monkeypatch.setattr(measuring, "SIBLING_STEP", 2)
    good, bad = (Node([i, 9, 9, END], [-1.0] * 4, True, reward=float(i)) for i in (1, 0))
    references = [
        Reference(good, (0, 2), (0.5, 0.9), (0.0, 1e-4), 10),
        Reference(bad, (0, 2), (0.5, 0.2), (0.0, 1e-4), 10),
    ]
    right = [[Segment(0, 4, 0, 0.5, 1.0)], [Segment(0, 2, 0, 0.5, 0.4), Segment(2, 4, 0, 0.4, 0.0)]]
    # after 2 tokens; at the end, where every method knows both rewards, there is nothing to rank
    assert measuring.sibling_sums(references, right).tolist() == [1, 1]
    assert measuring.sibling_sums(references, right[::-1]).tolist() == [0, 1]
    tie = [[Segment(0, 4, 0, 0.5, 0.5)]] * 2
    assert measuring.sibling_sums(references, tie).tolist() == [0.5, 1]
    assert measuring.sibling_sums(references, [[], []]).tolist() == [0.5, 1]  # no opinion
    # tokens before the first segment: worth what that one begins with
    late = [[Segment(2, 4, 0, 0.1, 1.0)], [Segment(2, 4, 0, 0.4, 0.0)]]
    assert measuring.sibling_sums(references, late).tolist() == [0, 1]
    unclear = [references[0], Reference(bad, (0, 2), (0.5, 0.85), (0.0, 1e-3), 10)]
    assert measuring.sibling_sums(unclear, right).tolist() == [0, 0]


def test_the_gradient_view_recovers_what_was_put_in():
    random, count = np.random.default_rng(2), 400
    mean, other = np.zeros(50), np.zeros(50)
    mean[0], other[:2] = 2.0, (3.0, 4.0)  # cosine 0.6
    gradients = mean + random.normal(size=(count, 50)) * 0.5  # v = 12.5
    truth = other + random.normal(size=(count, 50)) * 0.1
    found = view(gradients, truth, np.full(count, 30.0), np.full(count, 10.0), 120.0)
    assert found.signal.value == pytest.approx(4, rel=0.05) and found.variance.value == pytest.approx(12.5, rel=0.05)
    assert found.noise_to_signal.value == pytest.approx(12.5 / 4 / 4, rel=0.05)
    assert found.direction.value == pytest.approx(0.6, abs=0.02)
    batches = gradients.reshape(count // 4, 4, 50).mean(axis=1)  # 120 tokens pay for four questions
    cosines = batches @ other / np.linalg.norm(batches, axis=1) / 5
    assert found.cosine.value == pytest.approx(cosines.mean(), rel=0.03)
    other_batches = gradients[::-1].reshape(count // 4, 4, 50).mean(axis=1)  # of other questions, but for none
    alike = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(batches, other_batches, strict=True)]
    assert found.agreement.value == pytest.approx(np.mean(alike), rel=0.03)
    few = found.measured_cosine
    assert few.value == pytest.approx(found.cosine.value, rel=0.01) and few.low < few.value < few.high
    # by hand: a question is never multiplied with itself
    three = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    found = view(three, three, np.ones(3), np.ones(3), 1.0)
    assert found.signal.value == pytest.approx(2 / 3) and np.isnan(found.signal.low)
    assert found.variance.value == pytest.approx(14 / 3 - 2 / 3)
    with pytest.raises(ValueError, match="at least 2 questions"):
        view(gradients[:1], truth[:1], np.ones(1), np.ones(1), 1.0)


def test_the_client_of_the_tests_is_the_chain_and_begins_anew():
    client = ChainClient()
    drawn = []
    for _ in range(2):
        client.begin(5)
        root = asyncio.run(
            grow_tree(
                FollowingSampler(client, "q", {}, frozenset({EOS}), prompt_length=1),
                (PROMPT,),
                TreeSettings((9,), ()),
                9,
            )
        )
        drawn.append([child.token_ids for child in root.children])
    assert drawn[0] == drawn[1]
