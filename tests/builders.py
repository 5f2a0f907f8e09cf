"""One-line builders for trees, so that a test states its rule and nothing else."""

from __future__ import annotations

import itertools

from recipe.spo.tree import Node

_tokens = itertools.count(100)


def leaf(reward: float, log_probs: tuple[float, ...] = (-1.0, -0.01)) -> Node:
    """A finished response with a reward; tokens are distinct numbers."""
    return Node([next(_tokens) for _ in log_probs], list(log_probs), finished=True, reward=reward)


def inner(*children: Node, log_probs: tuple[float, ...] = (-2.0,)) -> Node:
    """A node with a segment of its own and children."""
    return Node([next(_tokens) for _ in log_probs], list(log_probs), children=list(children))


def root_of(*children: Node) -> Node:
    """The prompt's state: children, and no segment of its own."""
    return Node(children=list(children))
