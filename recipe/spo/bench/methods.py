"""The methods that are measured: a rollout as training grows it, cut down to a size, and a credit rule.

A `Plan` is sampled once a question, at the largest size of its family; a smaller size keeps the first children or
continuations, which are as good a draw as any. The cost of a method is the tokens of what it keeps.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from recipe.spo.advantage import Sample
from recipe.spo.bench.credited import CreditedSegments, chain_credit, tree_credit
from recipe.spo.chain import ChainRollout
from recipe.spo.credit import TREE_RULES, shrinkage
from recipe.spo.settings import ChainSettings, TreeSettings
from recipe.spo.tree import Node, walk

Rollout = Node | ChainRollout
#: The family that all others are compared with.
GROUP = "group mean"
Credit = Callable[[Rollout, int], tuple[list[Sample], list[CreditedSegments]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sampled.

    Attributes:
        name: of the rollout.
        shape: of the tree (a group is one of depth one) or the chain.
    """

    name: str
    shape: TreeSettings | ChainSettings


@dataclass(frozen=True, slots=True)
class Method:
    """What is measured.

    Attributes:
        name: in tables and pictures.
        family: methods that differ in size alone; one line in a picture.
        plan: its rollout.
        keep: cuts the rollout down to the method's size.
        credit: (rollout, references) -> samples for training, and the segments of each reference.
        gradient: its policy gradient is measured too.
        has_scale: its advantages are estimates of V(after) - V(before), not multiples of it.
        drawn: it is in the picture, which would be crowded with every rule on the same rollouts.
        rival: the method with the mean rule on the same rollouts; None for that one itself.
        one_size: its credit of a response does not depend on how many there are, so it is the same at every budget.
    """

    name: str
    family: str
    plan: Plan
    keep: Callable[[Rollout], Rollout]
    credit: Credit
    gradient: bool = False
    has_scale: bool = True
    drawn: bool = True
    rival: str | None = None
    one_size: bool = False


def generated_tokens(rollout: Rollout) -> int:
    """Tokens that sampling a rollout took."""
    if isinstance(rollout, ChainRollout):
        nodes: Iterable[Node] = [
            *(trajectory.response for trajectory in rollout.trajectories),
            *(node for samples in rollout.continuations.values() for node in samples),
        ]
    else:
        nodes = (visit.node for visit in walk(rollout))
    return sum(len(node.token_ids) for node in nodes)


def keep_children(shape: Sequence[int]) -> Callable[[Rollout], Rollout]:
    """Keep the first children of every node, so many at each depth."""

    def kept(node: Node, depth: int) -> Node:
        if not node.children:
            return replace(node)
        return replace(node, children=[kept(child, depth + 1) for child in node.children[: shape[depth]]])

    return lambda root: kept(root, 0)


def keep_continuations(number: int) -> Callable[[Rollout], Rollout]:
    """Keep the first continuations of every cut."""

    def keep(rollout: ChainRollout) -> ChainRollout:
        return replace(
            rollout, continuations={state: samples[:number] for state, samples in rollout.continuations.items()}
        )

    return keep


def group_methods(sizes: Sequence[int], gradient_size: int) -> list[Method]:
    """The reward of the one response (REINFORCE), the group's mean (GRPO without and with its standard deviation),
    and the mean of the others (RLOO)."""
    plan = Plan("group", TreeSettings((max(sizes),), ()))
    reward = tree_credit(lambda path: path[-1].value, "reward")
    whole, name = keep_children((gradient_size,)), "trajectory reward"
    methods = [Method(f"{name}, {gradient_size}", name, plan, whole, reward, gradient=True, one_size=True)]
    for size in sizes:
        keep, measured = keep_children((size,)), size == gradient_size
        mean, others = (tree_credit(TREE_RULES[rule], "difference") for rule in ("mean", "leave_one_out"))
        scaled, rival = tree_credit(TREE_RULES["std"], "none"), f"{GROUP}, {size}"
        methods.append(Method(rival, GROUP, plan, keep, mean, measured))
        methods.append(Method(f"leave-one-out, {size}", "leave-one-out", plan, keep, others, drawn=False, rival=rival))
        name = f"{GROUP} / std"
        methods.append(Method(f"{name}, {size}", name, plan, keep, scaled, measured, False, False, rival))
    return methods


def chain_methods(
    family: str, shape: ChainSettings, continuations: Sequence[int], gradient_at: Sequence[int]
) -> list[Method]:
    """SPO-chain, or VinePPO where the partition is lines, with several K."""
    plan = Plan(family, replace(shape, continuations=max(continuations)))
    return [
        Method(f"{family}, K={k}", family, plan, keep_continuations(k), chain_credit, k in gradient_at)
        for k in continuations
    ]


def tree_methods(
    kind: str, shapes: Sequence[Sequence[int]], largest: TreeSettings, gradient_shape: Sequence[int]
) -> list[Method]:
    """SPO-tree with the mean rule, in several sizes; the largest one is sampled."""
    family = f"{kind} {family_name(shapes)}"
    plan = Plan(family, largest)
    mean = tree_credit(TREE_RULES["mean"], "difference")
    return [
        Method(
            f"{kind} {shape_name(shape)}", family, plan, keep_children(shape), mean, list(shape) == [*gradient_shape]
        )
        for shape in shapes
    ]


def other_rules(methods: Sequence[Method], strength: float) -> list[Method]:
    """The same trees under the other credit rules.

    Leave-one-out's gradient is a multiple of the mean rule's wherever all nodes have as many children.
    """
    rules = {
        "leave-one-out": (tree_credit(TREE_RULES["leave_one_out"], "difference"), False),
        f"shrinkage {strength:g}": (tree_credit(shrinkage(strength), "sum"), True),
        "global+local": (tree_credit(TREE_RULES["global_local"], "none"), True),
    }
    return [
        replace(
            method,
            name=f"{method.name}, {name}",
            family=f"{method.family}, {name}",
            credit=credit,
            gradient=method.gradient and measured,
            has_scale=name != "global+local",
            drawn=False,
            rival=method.name,
        )
        for name, (credit, measured) in rules.items()
        for method in methods
    ]


def shape_name(shape: Sequence[int]) -> str:
    """(6, 6, 6) -> 6-6-6."""
    return "-".join(map(str, shape))


def family_name(shapes: Sequence[Sequence[int]]) -> str:
    """n-2-2 for 8-2-2 and 16-2-2."""
    levels = [{shape[depth] for shape in shapes} for depth in range(len(shapes[0]))]
    return "-".join("n" if len(found) > 1 else str(*found) for found in levels)
