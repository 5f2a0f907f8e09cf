"""From a rollout to the credit that each reference's segments get, and the values it is made of.

A segment's credit is V(after) - V(before). What a rule takes for the two:

    difference   V(child), and V(child) - A: the mean of the children, or of the others (leave-one-out)
    sum          W(x) = V(root) + the advantages up to x (shrinkage)
    reward       the reward of the response, for both: the trajectory's reward as value
    none         the advantage is no difference of two values (divided by std; global + local)

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from recipe.spo.advantage import Sample, chain_samples, tree_samples
from recipe.spo.chain import ChainRollout
from recipe.spo.credit import TreeRule, difference
from recipe.spo.partition import segments
from recipe.spo.tree import Node, compute_values

Values = Literal["difference", "sum", "reward", "none"]


class Segment(NamedTuple):
    """Tokens begin .. end - 1 of a reference.

    Attributes:
        begin: first token.
        end: behind the last one.
        advantage: on each of its tokens.
        before: value that the method gives the state before the segment; None: it gives none.
        after: value of the state after it.
    """

    begin: int
    end: int
    advantage: float
    before: float | None
    after: float | None


#: The segments of one reference, in order.
CreditedSegments = list[Segment]


def tree_credit(rule: TreeRule, values: Values) -> Callable[[Node, int], tuple[list[Sample], list[CreditedSegments]]]:
    """Credit of a graded tree, or a group, under a rule."""

    def credit(root: Node, references: int) -> tuple[list[Sample], list[CreditedSegments]]:
        compute_values(root)
        return list(tree_samples(root, rule)), [_path(root, index, rule, values) for index in range(references)]

    return credit


def _path(root: Node, index: int, rule: TreeRule, values: Values) -> CreditedSegments:
    path, found, running = [root, root.children[index]], [], root.value
    while True:
        child = path[-1]
        advantage = rule(path)
        begin = found[-1].end if found else 0
        before: float | None
        after: float | None
        if values == "difference":
            before, after = child.value - advantage, child.value
        elif values == "sum":
            before, after = running, running + advantage
            running = after
        elif values == "reward":
            before = after = child.value
        else:
            before = after = None
        found.append(Segment(begin, begin + len(child.token_ids), advantage, before, after))
        if child.is_leaf:
            return found
        path.append(child.children[0])


def chain_credit(rollout: ChainRollout, references: int) -> tuple[list[Sample], list[CreditedSegments]]:
    """Credit of a graded chain: the difference of its cuts' values (SPO-chain, VinePPO)."""
    values, found = rollout.values(), []
    for trajectory in rollout.trajectories[:references]:
        cuts, reward = trajectory.cuts, trajectory.response.reward
        at = [values[trajectory.state(cut)] for cut in cuts]
        credits = difference(at, reward) if cuts else []
        parts = zip(segments(cuts, len(trajectory.response.token_ids)), credits, strict=True)
        ends = [*at[1:], reward]
        found.append([Segment(*part, a, at[i], ends[i]) for i, (part, a) in enumerate(parts)])
    return list(chain_samples(rollout)), found
