"""The tree of segments that a rollout grows, and the value of each of its nodes.

A node is a *state*: the prompt followed by the segments on the path from the root. Its own
segment is the edge that leads to it. Values follow the paper (section 4.2, SPO-tree):

    V(leaf) = reward of the whole response          V(node) = mean of V over its children

V is unbiased. A state with b children, each valued by b' children of its own that are leaves, has

    Var V = (Var over children of their true value + mean over children of Var(reward) / b') / b

(law of total variance), so that the first level's b counts most.

Departures from the authors' code: nodes hold token ids, never text; a response that did not finish
is worth `unfinished_reward` whatever its text says (the authors grade the last segment alone).

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """A state of the tree, with the segment (edge) that leads to it from its parent.

    Attributes:
        token_ids: the segment's tokens as sampled, EOS included; empty for the root only.
        log_probs: log-probability of each of these tokens under the sampling policy, natural log,
            after temperature (and top-p/top-k, where used); same length as `token_ids`.
        finished: the policy ended the response here (EOS or a stop sequence).
        children: nodes sampled from this state, in the order in which they were asked for.
        reward: reward of the response that ends here; leaves only.
        verdict: the grader's reason for that reward, such as `wrong`; "" where it gives none.
        value: estimated expected reward from this state, filled in by `compute_values`.
    """

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finished: bool = False
    children: list[Node] = field(default_factory=list)
    reward: float | None = None
    verdict: str = ""
    value: float | None = None

    @property
    def is_leaf(self) -> bool:
        return not self.children

    @property
    def leaf_count(self) -> int:
        """Leaves at or under this node: the responses that its value is made of."""
        return sum(child.leaf_count for child in self.children) if self.children else 1


@dataclass(slots=True, frozen=True)
class Visit:
    """A node as met on a walk: where it stands, the nodes above it, root first, and the response
    tokens that precede its own segment."""

    path: tuple[int, ...]
    node: Node
    ancestors: tuple[Node, ...]
    prefix_ids: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.path)

    @property
    def parent(self) -> Node | None:
        return self.ancestors[-1] if self.ancestors else None

    @property
    def response_ids(self) -> tuple[int, ...]:
        """All response tokens up to and including this node's segment."""
        return self.prefix_ids + tuple(self.node.token_ids)


def walk(root: Node) -> Iterator[Visit]:
    """Visit every node depth first, parents before children, siblings in sampling order.

    Args:
        root: the prompt state; it has no segment of its own.

    Yields:
        One `Visit` a node; `path` is the list of child indices from the root (`()` for the root).
    """
    stack = [Visit((), root, (), ())]
    while stack:
        visit = stack.pop()
        yield visit
        prefix = visit.response_ids
        stack.extend(
            Visit((*visit.path, index), child, (*visit.ancestors, visit.node), prefix)
            for index, child in reversed(list(enumerate(visit.node.children)))
        )


def compute_values(root: Node) -> None:
    """Fill in `value` bottom-up: V(leaf) = reward, V(node) = mean of its children's values.

    An early leaf counts as one child, like a sibling that carries a whole subtree: both are one
    draw of the policy from the parent's state, so the plain mean is the unbiased estimate.

    Raises:
        ValueError: a leaf has no reward, or an inner node has one.
    """
    for visit in reversed(list(walk(root))):
        node = visit.node
        if node.is_leaf:
            if node.reward is None:
                raise ValueError(f"leaf {visit.path} has no reward: grade every leaf before computing values")
            node.value = float(node.reward)
        else:
            if node.reward is not None:
                raise ValueError(f"node {visit.path} has children and a reward: only leaves are graded")
            node.value = sum(child.value for child in node.children) / len(node.children)


def endings(root: Node) -> Iterator[tuple[tuple[int, ...], Node]]:
    """Every sampled response of a tree: all of its tokens, and the leaf that takes its reward."""
    for visit in walk(root):
        if visit.node.is_leaf:
            yield visit.response_ids, visit.node
