"""Batches for `benchmarks.shared_prefixes`: rows of trees, of groups, and rows that share nothing.

Token ids are random, shapes are those of the paper's experiments: a tree's segments are rows unless their advantage is
zero, and of their tokens only those with p < 0.9 train, by this package's own rules. Rewards are simulated: a state's
chance of success is its parent's plus noise, so that states near the end are often decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipe.spo.advantage import tree_samples
from recipe.spo.rows import Row, select_rows
from recipe.spo.tree import Node, compute_values

#: Share of tokens that the policy found improbable, p < 0.9: of a policy on word problems, roughly.
IMPROBABLE = 0.4
#: How much the chance of success moves with a segment.
NOISE = 0.25


@dataclass(frozen=True, slots=True)
class Shape:
    """Lengths in tokens; those of the last level, where a response ends, are drawn evenly from a range."""

    prompt: int
    factors: tuple[int, ...]
    segment: int
    last: tuple[int, int]


#: GSM8K: 30 tokens a level; MATH: 600, and a context of about 2,000; a group: GRPO's eight whole responses.
SHAPES = {
    "gsm8k": Shape(100, (6, 6, 6), 30, (40, 120)),
    "math": Shape(100, (6, 6, 6), 600, (200, 800)),
    "group": Shape(100, (8,), 0, (100, 240)),
}
#: Rows of a GSM8K tree's lengths, of which each has tokens of its own.
APART = "apart"
BATCHES = (*SHAPES, APART)


def make_rows(name: str, trees: int, most: int | None, vocabulary: int, seed: int) -> list[Row]:
    """Rows of one batch.

    Args:
        name: one of `BATCHES`.
        trees: how many questions.
        most: rows chosen at random if there are more, as replay chooses; `None`: all with an advantage.
        vocabulary: token ids are drawn below this.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    shape = SHAPES["gsm8k" if name == APART else name]
    rows = [row for _ in range(trees) for row in _tree(rng, shape, vocabulary)]
    if most is not None and len(rows) > most:
        rows = [rows[i] for i in sorted(rng.choice(len(rows), most, replace=False))]
    return [_apart(rng, row, vocabulary) for row in rows] if name == APART else rows


def _tree(rng: np.random.Generator, shape: Shape, vocabulary: int) -> list[Row]:
    def grow(chance: float, depth: int) -> Node:
        last = depth == len(shape.factors)
        length = 0 if not depth else int(rng.integers(*shape.last)) if last else shape.segment
        node = Node(rng.integers(0, vocabulary, length).tolist(), _log_probs(rng, length), finished=last)
        if last:
            node.reward = float(rng.random() < chance)
            return node
        moved = np.clip(chance + NOISE * rng.standard_normal(shape.factors[depth]), 0.0, 1.0)
        node.children = [grow(float(each), depth + 1) for each in moved]
        return node

    root = grow(0.5, 0)
    compute_values(root)
    prompt = rng.integers(0, vocabulary, shape.prompt).tolist()
    return select_rows(prompt, tree_samples(root), 0.9).rows


def _log_probs(rng: np.random.Generator, length: int) -> list[float]:
    sure = rng.random(length) >= IMPROBABLE
    return np.log(np.where(sure, 0.95, rng.uniform(0.1, 0.85, length))).tolist()


def _apart(rng: np.random.Generator, row: Row, vocabulary: int) -> Row:
    ids = rng.integers(0, vocabulary, len(row.prompt_ids) + len(row.response_ids)).tolist()
    split = len(row.prompt_ids)
    return Row(row.path, ids[:split], ids[split:], row.response_mask, row.advantages, row.log_probs, row.score)
