"""Segment advantages: what a segment was worth.

SPO-tree (paper, section 4.2): every child of a state is one alternative continuation, and

    A(child) = V(child) - V(parent),      V(parent) = mean over the children (the child included).

So siblings' advantages sum to zero, and along a path the advantages telescope to R(leaf) - V(root).
The authors' code names this option "rloo"; it is a mean baseline: the true leave-one-out advantage
is n / (n - 1) times as large.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipe.spo.tree import Node, walk

#: Advantages smaller than this are rounding noise of the mean over equal values: no signal.
ZERO_ADVANTAGE = 1e-9


@dataclass(slots=True, frozen=True)
class Segment:
    """One segment with its credit.

    Attributes:
        path: child indices from the root; identifies the segment within its tree.
        prefix_ids: response tokens before the segment (its context is prompt + prefix_ids).
        token_ids: the segment's tokens.
        log_probs: their log-probabilities when sampled, same length.
        value: V of the state after the segment.
        advantage: A of the segment, the same for every token in it.
    """

    path: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    value: float
    advantage: float


def tree_segments(root: Node) -> Iterator[Segment]:
    """Give every segment of a tree its advantage, A = V(child) - V(parent).

    Args:
        root: a tree on which `recipe.spo.tree.compute_values` has run.

    Yields:
        All segments, depth first; those without signal (A = 0) carry an exact 0.0.

    Raises:
        ValueError: values are missing.
    """
    for visit in walk(root):
        if visit.parent is None:
            continue
        if visit.node.value is None or visit.parent.value is None:
            raise ValueError(f"node {visit.path} has no value: call compute_values first")
        advantage = visit.node.value - visit.parent.value
        yield Segment(
            path=visit.path,
            prefix_ids=visit.prefix_ids,
            token_ids=tuple(visit.node.token_ids),
            log_probs=tuple(visit.node.log_probs),
            value=visit.node.value,
            advantage=advantage if abs(advantage) > ZERO_ADVANTAGE else 0.0,
        )
