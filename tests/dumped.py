"""Dump folders as a run leaves them, made without a run: random rollouts, credited and recorded by our code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipe.spo.advantage import chain_samples, tree_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.credit import chain_rule, tree_rule
from recipe.spo.recorder import Recorder
from recipe.spo.rows import select_rows
from recipe.spo.settings import SPOSettings
from recipe.spo.tree import Node, compute_values
from tests.unit.test_settings import settings

WORDS = ("the", " sum", " of", " 12", " and", " 30", " is", " 42", ".", "\n", " so", " x", " =", " apples", "<eos>")
PROMPT_IDS = [0, 1, 2, 3, 4, 5]


def decode(token_ids: Sequence[int]) -> str:
    """Of a tokenizer with a word a token."""
    return "".join(WORDS[token] for token in token_ids)


def segment(rng: random.Random, tokens: int) -> Node:
    ids = [rng.randrange(len(WORDS) - 1) for _ in range(tokens)]
    return Node(ids, [-rng.expovariate(4.0) for _ in ids])


def ended(rng: random.Random, node: Node) -> Node:
    """The node as a response's end, right half of the time."""
    node.finished, node.reward = True, float(rng.random() < 0.5)
    node.verdict = "correct" if node.reward else "wrong"
    return node


def tree(rng: random.Random, factors: Sequence[int] = (6, 6, 6), tokens: int = 12) -> Node:
    def grow(node: Node, levels: Sequence[int]) -> Node:
        for _ in range(levels[0] if levels else 0):
            node.children.append(grow(segment(rng, tokens), levels[1:]))
        return node if levels else ended(rng, node)

    root = grow(Node(), factors)
    compute_values(root)
    return root


def chain(rng: random.Random, responses: int = 2, tokens: int = 30, continuations: int = 3) -> ChainRollout:
    """Cut every 8 tokens from the fourth on, so that each response begins with tokens of no segment."""
    rollout = ChainRollout()
    for _ in range(responses):
        trajectory = Trajectory(ended(rng, segment(rng, tokens)), list(range(4, tokens, 8)))
        rollout.trajectories.append(trajectory)
        for cut in trajectory.cuts:
            rollout.continuations[trajectory.state(cut)] = [
                ended(rng, segment(rng, tokens - cut)) for _ in range(continuations)
            ]
    return rollout


def recorded(
    folder: Path,
    rollout: Node | ChainRollout,
    of: str | None = None,
    step: int = 1,
    uid: str = "u1",
    decode=decode,
    spo: SPOSettings | None = None,
    **changes,
) -> dict[str, float]:
    """Record one question as the worker does; returns its counts.

    Args:
        folder: of the dump.
        rollout: a tree with values, or a chain with rewards.
        of: method preset.
        step: training step.
        uid: identity of the question.
        decode: token ids to text.
        spo: settings in place of those that `of` and `changes` make.
        changes: of `algorithm.spo`.
    """
    of = of or ("chain" if isinstance(rollout, ChainRollout) else "tree")
    spo = replace(spo or settings(of=of, **changes), dump_dir=str(folder))
    if isinstance(rollout, ChainRollout):
        samples = list(chain_samples(rollout, chain_rule(spo.credit)))
    else:
        samples = list(tree_samples(rollout, tree_rule(spo.credit, spo.shrinkage) if spo.credit else lambda path: 0.0))
    selection = select_rows(
        PROMPT_IDS,
        samples,
        mask_threshold=spo.rollout_mask_threshold,
        keep_all=spo.keep_zero_advantage or spo.method == "ppo",
    )
    prompt = {"uid": uid, "global_steps": step, "index": 7, "reward_model": {"ground_truth": "42"}}
    return Recorder(spo, decode).record(prompt, PROMPT_IDS, rollout, samples, selection, chosen=True)
