"""The noise of each method on the Markov task: against the code of training, closed forms and brute force."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.markov_noise import METHODS, figures, main, need
from benchmarks.markov_task import RULES, Chain, Task, Tree
from recipe.spo.advantage import chain_samples, tree_samples
from recipe.spo.credit import TREE_RULES
from recipe.spo.partition import fixed_length_cuts
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.settings import ChainSettings
from recipe.spo.tree import Node, compute_values

TASK = Task(4, 0.7)


@pytest.mark.parametrize("rule", RULES)
def test_advantages_are_those_of_training(rule):
    tree = Tree((3, 2, 4), (1, 3), rule)
    edges, segments, values = tree.rollout(TASK, 30, np.random.default_rng(3))

    def grow(question: int, path: tuple[int, ...]) -> Node:
        level = len(path)
        if level == len(tree.branch_factors):
            return Node([1], [0.0], finished=True, reward=float(values[level][(question, *path)]))
        children = [grow(question, (*path, i)) for i in range(tree.branch_factors[level])]
        return Node([1] if path else [], [0.0] if path else [], children=children)

    for question in range(30):
        root = grow(question, ())
        compute_values(root)
        for sample in tree_samples(root, TREE_RULES[rule]):
            ours = RULES[rule](values, len(sample.path) - 1)[(question, *sample.path)]
            assert ours == pytest.approx(sample.advantages[0], abs=1e-6)
    assert edges == (0, 1, 3, 4) and [part.shape[-1] for part in segments] == [1, 2, 1]


def test_a_leaf_is_right_where_all_steps_on_its_path_are():
    _, segments, values = Tree((2, 2), (3,)).rollout(TASK, 50, np.random.default_rng(1))
    for question, first, second in itertools.product(range(50), range(2), range(2)):
        right = segments[0][question, first].all() and segments[1][question, first, second].all()
        assert values[2][question, first, second] == right


def test_a_groups_mean_gradient_by_its_closed_form():
    # (n - 1) / n of each of n responses' p^L (1 - p): the mean rule has the response itself in its baseline.
    tokens, gradient = Tree((5,)).draw(TASK, 40_000, np.random.default_rng(0))
    error = gradient.std(0) / 200
    assert tokens == 5 * 4 * 7
    assert np.all(abs(gradient.mean(0) - 4 * TASK.truth) < 4 * error)


@pytest.mark.parametrize(
    "method", [Tree((4,), rule="leave_one_out"), Chain(4, 1, 2), Chain(3, 2, 1), Chain(3, 2, None)]
)
def test_unbiased_methods_have_the_true_gradient(method):
    responses = method.responses if isinstance(method, Chain) else method.branch_factors[0]
    _, gradient = method.draw(TASK, 40_000, np.random.default_rng(0))
    assert np.all(abs(gradient.mean(0) - responses * TASK.truth) < 4 * gradient.std(0) / 200)


def test_figures_against_all_outcomes():
    """A group of two, two steps: sixteen outcomes with their probabilities."""
    task, total, second, shared, shared_second = Task(2, 0.6), np.zeros(2), np.zeros((2, 2)), 0.0, 0.0
    for outcome in itertools.product((0, 1), repeat=4):
        right = np.array(outcome, float).reshape(2, 2)
        chance = np.prod(np.where(right == 1, 0.6, 0.4))
        reward = right.prod(1)
        gradient = ((reward - reward.mean())[:, None] * (right - 0.6)).sum(0)
        total += chance * gradient
        second += chance * np.outer(gradient, gradient)
        shared += chance * gradient.sum()
        shared_second += chance * gradient.sum() ** 2
    tokens = 2 * 2 * 7
    own = tokens * np.trace(second - np.outer(total, total)) / (total @ (np.ones(2) / 2**0.5)) ** 2
    one = tokens * (shared_second - shared**2) / shared**2
    found = need(Tree((2,)), task, 200_000, 0)
    assert found.own == pytest.approx(own, abs=4 * found.own_error) and found.own_error < 0.02 * own
    assert found.shared == pytest.approx(one, abs=4 * found.shared_error)
    assert found.cosine == pytest.approx(1, abs=1e-3) and found.tokens == tokens


class Steps:
    """A policy whose tokens are steps: right (1) with the task's probability, or one of many wrong ones."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.random, self.generated = task, np.random.default_rng(seed), 0

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        number = sampling_params["max_tokens"]
        wrong = self.random.integers(2, 10**9, number)
        ids = np.where(self.random.random(number) < self.task.right, 1, wrong).tolist()
        self.generated += number
        return SimpleNamespace(token_ids=ids, log_probs=[-2.0] * number, stop_reason="completed", extra_fields={})


def test_chains_are_those_of_training():
    """Tokens and gradients of chains that `grow_chain` samples, against `Chain`'s."""
    method, questions = Chain(3, 2, 2), 3_000
    settings = ChainSettings(trajectories=3, continuations=2, partition="fixed_length", segment_length=2)
    client = Steps(TASK, seed=5)
    sampler = Sampler(client, "all", {}, frozenset())

    async def everything():
        return [await grow_chain(sampler, [0], settings, cuts, TASK.steps) for _ in range(questions)]

    def cuts(response: Node) -> list[int]:
        return fixed_length_cuts(len(response.token_ids), method.every)

    theirs = np.zeros((questions, TASK.steps))
    for number, rollout in enumerate(asyncio.run(everything())):
        for ids, node in rollout.endings():
            node.reward = float(all(step == 1 for step in ids))
        for sample in chain_samples(rollout):
            right = np.array(sample.token_ids) == 1
            theirs[number] += np.array(sample.advantages) * (right - TASK.right)
    tokens, ours = method.draw(TASK, 20_000, np.random.default_rng(0))
    assert tokens == pytest.approx(7 * client.generated / questions, rel=0.02)
    assert np.all(abs(theirs.mean(0) - ours.mean(0)) < 4 * theirs.std(0) / questions**0.5)
    assert theirs.var(0) == pytest.approx(ours.var(0), rel=0.1)


def test_noise_that_is_added_is_seen():
    random = np.random.default_rng(0)
    _, gradient = Tree((6,)).draw(TASK, 5_000, random)
    quiet, loud = (figures(gradient + random.normal(0, noise, gradient.shape), TASK.truth, 1) for noise in (0, 0.5))
    assert loud[0] > 1.2 * quiet[0] and loud[1] > 1.2 * quiet[1]


def test_exact_values_cost_nothing_and_have_less_noise_than_few_continuations():
    exact, few = (need(Chain(4, 2, k), TASK, 20_000, 0) for k in (None, 1))
    assert exact.tokens == 4 * 4 * 7 < few.tokens and exact.own < few.own / 2


def test_the_command(tmp_path, capsys):
    file = tmp_path / "noise.md"
    assert main(["--right", "0.8", "--questions", "400", "--markdown", str(file)]) == 0
    text = capsys.readouterr().out
    assert file.read_text().strip() == text.strip() and text.count("\n| ") == len(METHODS) + 2
    assert "| group of 12, mean | 756 | 1.00 ±" in text and "**0.8 of the steps right, 13.4% of the answers**" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--right", "1"], "--right must be above 0"),
        (["--right", "0.01", "--questions", "20"], "--right 0.01: no answer was right"),
        (["--steps", "7"], "--steps must be at least 8"),
        (["--questions", "5"], "--questions must be at least 20"),
        (["--markdown", "/nowhere/noise.md"], "--markdown /nowhere/noise.md: its folder does not exist"),
    ],
)
def test_wrong_input_names_the_option(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and complaint in capsys.readouterr().err
