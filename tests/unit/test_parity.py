"""Ours against the authors' published rules (`reference_rules`, written without a look at ours), on random inputs.

Where the two differ on purpose, a test states the difference; the modules' heads say why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recipe.spo.advantage import chain_samples, tree_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.credit import ZERO_ADVANTAGE, difference, leave_one_out, mean, std
from recipe.spo.normalize import whiten
from recipe.spo.partition import equal_cuts, low_probability_cuts
from recipe.spo.published import published_policy_loss
from recipe.spo.rows import probability_mask, select_rows
from recipe.spo.tree import Node, compute_values, walk
from tests.unit import reference_rules as theirs

INPUTS = 1000
THRESHOLD = theirs.MASK_BELOW


def inputs(seed: int) -> Iterator[np.random.Generator]:
    """As many generators as inputs; each input can be made again from (seed, number)."""
    return (np.random.default_rng([seed, number]) for number in range(INPUTS))


def probabilities_of(rng: np.random.Generator, least: int = 1) -> np.ndarray:
    """A response's token probabilities: sure and unsure ones, now and then all of one kind."""
    sure = rng.random(rng.integers(least, 40)) < rng.choice([0.0, 0.5, 0.9, 1.0])
    return np.where(sure, rng.uniform(0.9001, 1.0, len(sure)), rng.uniform(0.01, 0.8999, len(sure)))


def sampled(probabilities: np.ndarray, reward: float | None = None) -> Node:
    """A whole response with these token probabilities; its tokens are 0, 1, 2, ..."""
    return Node(list(range(len(probabilities))), np.log(probabilities).tolist(), finished=True, reward=reward)


def rewards_of(rng: np.random.Generator, count: int) -> list[float]:
    """Right or wrong, or any number."""
    return (rng.integers(0, 2, count) if rng.random() < 0.7 else rng.normal(size=count)).astype(float).tolist()


def rollout_of(response: Node, cuts: list[int], rewards: dict[int, list[float]]) -> ChainRollout:
    """One response; `rewards` of the continuations by the number of tokens before them."""
    states = {tuple(response.token_ids[:cut]): [Node([9], [-1.0], reward=r) for r in of] for cut, of in rewards.items()}
    return ChainRollout([Trajectory(response, cuts)], states)


# --- chains --------------------------------------------------------------------------------------


def test_a_boundary_is_the_token_before_a_cut():
    for rng in inputs(1):
        probabilities, interval = probabilities_of(rng), int(rng.integers(1, 8))
        boundaries = theirs.low_probability_boundaries(probabilities, interval)
        cuts = low_probability_cuts(np.log(probabilities).tolist(), THRESHOLD, interval)
        assert cuts == [boundary + 1 for boundary in boundaries]


def test_chain_values_advantages_and_what_the_mask_leaves_of_them():
    for rng in inputs(2):
        probabilities, interval, k = probabilities_of(rng), int(rng.integers(1, 5)), int(rng.integers(1, 10))
        reward = rewards_of(rng, 1)[0]
        rewards = {b: rewards_of(rng, k) for b in theirs.low_probability_boundaries(probabilities, interval)}
        values = theirs.boundary_values(rewards)
        expected = theirs.chain_advantages(values, reward, len(probabilities))

        response = sampled(probabilities, reward)
        cuts = low_probability_cuts(response.log_probs, THRESHOLD, interval)
        rollout = rollout_of(response, cuts, {boundary + 1: of for boundary, of in rewards.items()})
        ours = rollout.values()
        assert [ours[tuple(response.token_ids[:cut])] for cut in cuts] == pytest.approx(list(values.values()))
        samples = list(chain_samples(rollout, difference))
        assert samples[0].advantages == pytest.approx(expected, abs=1e-12)
        rows = select_rows([7], samples, THRESHOLD, keep_all=True).rows
        if not rows:
            assert not cuts  # no token to train
            continue
        (row,) = rows
        assert row.advantages == pytest.approx(theirs.without_sure_tokens(expected, probabilities), abs=1e-12)


def test_equal_parts_are_theirs_and_a_cut_at_the_prompt():
    for rng in inputs(3):
        tokens, parts = int(rng.integers(4, 200)), 4
        assert equal_cuts(tokens, parts) == [0, *(boundary + 1 for boundary in theirs.equal_boundaries(tokens, parts))]


def test_equal_parts_are_credited_as_theirs_from_the_second_cut_on():
    for rng in inputs(4):
        probabilities = probabilities_of(rng, least=4)
        boundaries = theirs.equal_boundaries(len(probabilities))
        rewards, reward = {b: rewards_of(rng, 3) for b in boundaries}, rewards_of(rng, 1)[0]
        expected = theirs.chain_advantages(theirs.boundary_values(rewards), reward, len(probabilities))

        cuts, prompt = equal_cuts(len(probabilities), 4), rewards_of(rng, 3)
        by_cut = {0: prompt, **{boundary + 1: of for boundary, of in rewards.items()}}
        (sample,) = chain_samples(rollout_of(sampled(probabilities, reward), cuts, by_cut))
        second = cuts[1]
        assert not expected[:second].any()  # they estimate no value of the prompt
        assert sample.advantages[:second] == pytest.approx([np.mean(rewards[second - 1]) - np.mean(prompt)] * second)
        assert sample.advantages[second:] == pytest.approx(expected[second:], abs=1e-12)


# --- trees ---------------------------------------------------------------------------------------


def tree_of(rng: np.random.Generator, depth: int = 3) -> theirs.Tree:
    """A tree as they hold it, with early leaves; each segment has one unsure token, or a sure one alone."""
    leaf = depth == 0 or (depth < 3 and rng.random() < 0.2)
    tree: theirs.Tree = {"tokens": [1], "log_probs": [math.log(rng.choice([0.5, 0.95]))]}
    if leaf:
        return {**tree, "reward": float(rng.choice([0.0, 1.0, 1 / 3]))}
    return {**tree, "children": [tree_of(rng, depth - 1) for _ in range(rng.integers(1, 5))]}


def as_ours(tree: theirs.Tree) -> Node:
    children = [as_ours(child) for child in tree.get("children", ())]
    return Node(list(tree["tokens"]), list(tree["log_probs"]), children=children, reward=tree.get("reward"))


def both(rng: np.random.Generator) -> tuple[theirs.Tree, Node]:
    """The same random tree in both forms, valued by each side's own code."""
    tree = tree_of(rng)
    root = as_ours(tree)
    root.token_ids, root.log_probs = [], []
    theirs.add_values(tree)
    compute_values(root)
    return tree, root


def test_tree_values_and_advantages_by_both_rules():
    for rng in inputs(5):
        tree, root = both(rng)
        reference = list(theirs.edges(tree))
        nodes = [visit.node for visit in walk(root)]
        assert [node.value for node in nodes] == pytest.approx([tree["value"], *(edge["value"] for edge in reference)])
        for rule, name in ((mean, "rloo"), (std, "grpo")):
            ours = [sample.advantages[0] for sample in tree_samples(root, rule)]
            assert ours == pytest.approx([edge[name] for edge in reference], abs=1e-6)


@pytest.mark.parametrize(("rule", "name"), [(mean, "rloo"), (std, "grpo")])
def test_the_same_edges_train_but_for_rounding_noise(rule, name):
    noise = 0
    for rng in inputs(6):
        tree, root = both(rng)
        reference = list(theirs.edges(tree))
        kept = {id(edge) for edge in theirs.training_edges(tree, name)}
        ours = {row.path for row in select_rows([7], tree_samples(root, rule), mask_threshold=None).rows}
        for visit, edge in zip(itertools.islice(walk(root), 1, None), reference, strict=True):
            if id(edge) in kept and visit.path not in ours:
                assert abs(edge["rloo"]) <= ZERO_ADVANTAGE  # a mean of equal values that does not equal them
                noise += 1
            else:
                assert (id(edge) in kept) == (visit.path in ours)
    assert noise  # the exception is met, so that this test covers it


def test_of_their_edges_only_those_without_an_unsure_token_are_left_out_by_the_mask():
    for rng in inputs(7):
        tree, root = both(rng)
        expected = sum(
            abs(edge["rloo"]) > ZERO_ADVANTAGE and math.exp(edge["log_probs"][0]) < THRESHOLD
            for edge in theirs.training_edges(tree, "rloo")
        )
        assert len(select_rows([7], tree_samples(root, mean), THRESHOLD).rows) == expected


# --- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "reference"), [(std, theirs.group_grpo), (leave_one_out, theirs.group_rloo)])
def test_a_group_is_a_tree_of_depth_one(rule, reference):
    for rng in inputs(8):
        rewards = rewards_of(rng, int(rng.integers(2, 10)))
        root = Node(children=[Node([1], [-1.0], finished=True, reward=reward) for reward in rewards])
        compute_values(root)
        ours = [sample.advantages[0] for sample in tree_samples(root, rule)]
        assert ours == pytest.approx(reference(rewards), abs=1e-6)


# --- loss ----------------------------------------------------------------------------------------


def micro_batch(rng: np.random.Generator, spread: float = 0.3, trained: int = 2) -> dict[str, torch.Tensor]:
    """Rows of different lengths, at least `trained` unsure tokens in all; `spread`: how far the policy moved."""
    rows, width = int(rng.integers(1, 9)), int(rng.integers(2, 12))
    while True:
        response = np.arange(width) < rng.integers(1, width + 1, size=(rows, 1))
        old = np.log(np.where(rng.random((rows, width)) < 0.5, 0.95, rng.uniform(0.01, 0.89, (rows, width))))
        if (response & (np.exp(old) < THRESHOLD)).sum() >= trained:
            break
    advantages = rng.normal(size=(rows, 1)) * np.ones(width)
    made = {"old_log_probs": old, "ref_log_probs": old + rng.normal(scale=0.2, size=old.shape), "response": response}
    made |= {"log_probs": old + rng.normal(scale=spread, size=old.shape), "advantages": advantages}
    return {name: torch.tensor(array) for name, array in made.items()}


def our_mask(rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mask as rows are given it: by our rule, row by row."""
    masks = [probability_mask(log_probs, THRESHOLD) for log_probs in rows["old_log_probs"].tolist()]
    return torch.tensor(masks) * rows["response"]


def test_whitening_over_a_micro_batch():
    for rng in inputs(9):
        rows = micro_batch(rng)
        mask = theirs.training_mask(rows["response"], rows["old_log_probs"])
        assert torch.equal(our_mask(rows).bool(), mask)
        expected = theirs.whitened(rows["advantages"], mask, rows["response"])
        torch.testing.assert_close(whiten(rows["advantages"], mask), expected * mask)


def test_one_trained_token_alone_whitens_to_zero_where_theirs_is_no_number():
    advantages, mask = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
    assert torch.equal(whiten(advantages, mask), torch.zeros(1, 2))
    assert not theirs.whitened(advantages, mask, torch.ones(1, 2)).isfinite().any()


@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])  # within the clip; beyond it; beyond the limit of the log-ratio
def test_published_loss_and_gradient_of_a_micro_batch(spread):
    skipped = 0
    for rng in inputs(10):
        rows = micro_batch(rng, spread)
        gradients, losses = [], []
        for ours in (False, True):
            log_probs = rows["log_probs"].clone().requires_grad_()
            if ours:
                mask = our_mask(rows)
                loss, _, _ = published_policy_loss(log_probs, rows["old_log_probs"], rows["advantages"], mask, 0.2)
            else:
                loss = theirs.micro_batch_loss({**rows, "log_probs": log_probs}, kl_coef=0.0)
            loss.backward()
            losses.append(loss.detach())
            gradients.append(log_probs.grad)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*gradients)
        skipped += theirs.mean_ratio(rows["log_probs"], rows["old_log_probs"], mask) > 10
    assert (skipped > 0) == (spread > 1)  # micro-batches that count nothing are met
