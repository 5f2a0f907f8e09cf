"""Credit rules: from values to the advantage of a segment. One small function each.

A *tree rule* sees the nodes from the root down to the end of the segment and gives its advantage; the
values are in place, siblings are the children of the last but one. A *chain rule* sees the values of
a response's cuts and its reward, and gives one advantage a segment. Group baselines (GRPO, RLOO) are
tree rules on a tree of depth one: a group's responses are the children of their prompt.

Write V for value, c for the state after the segment, p for the one before (the parent), n for the
number of the parent's children. Then

    mean             V(c) - V(p), where V(p) is the children's mean    (SPO-tree, paper section 4.2)
    leave_one_out    V(c) - mean of V over the other children = n / (n - 1) * mean rule    (RLOO)
    std              (V(c) - V(p)) / (std of V over the children + 1e-8)    (GRPO; paper's variant)
    global_local     (V(c) - V(root)) + (V(c) - V(p))    (TreeRL, arXiv 2506.11902)
    shrinkage        W(c) - W(p), W(x) = (m V(x) + s W(parent of x)) / (m + s), m leaves under x
    difference       V(next cut) - V(cut), and R - V(cut) for the last    (SPO-chain, VinePPO)

The authors' code calls `mean` "rloo". TreeRL trains a shared step once for every response through it
and divides by the root of their number; here a segment is trained once, so there is nothing to divide
by. `shrinkage` pulls values that few responses stand behind toward their parent's; it is ours. Unlike
the others, these two can give credit to siblings that are worth the same.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from recipe.spo.tree import Node

#: Differences smaller than this are rounding noise of the mean over equal values: no signal.
ZERO_ADVANTAGE = 1e-9
#: Added to a standard deviation before dividing by it, as in the authors' code.
STD_EPSILON = 1e-8

TreeRule = Callable[[Sequence[Node]], float]
ChainRule = Callable[[Sequence[float], float], list[float]]


def gain(after: float, before: float) -> float:
    """after - before, with rounding noise made an exact zero."""
    difference = after - before
    return difference if abs(difference) > ZERO_ADVANTAGE else 0.0


def mean(path: Sequence[Node]) -> float:
    """A = V(c) - V(p). Siblings' advantages sum to zero; along a path they telescope to R - V(root)."""
    parent, child = path[-2], path[-1]
    return gain(child.value, parent.value)


def leave_one_out(path: Sequence[Node]) -> float:
    """A = V(c) - mean of V over the siblings of c; 0 for an only child."""
    parent, child = path[-2], path[-1]
    others = [node.value for node in parent.children if node is not child]
    return gain(child.value, sum(others) / len(others)) if others else 0.0


def std(path: Sequence[Node]) -> float:
    """A = (V(c) - V(p)) / (population standard deviation of V over the children + 1e-8)."""
    parent, child = path[-2], path[-1]
    variance = sum((node.value - parent.value) ** 2 for node in parent.children) / len(parent.children)
    return gain(child.value, parent.value) / (variance**0.5 + STD_EPSILON)


def global_local(path: Sequence[Node]) -> float:
    """A = (V(c) - V(root)) + (V(c) - V(p))."""
    root, parent, child = path[0], path[-2], path[-1]
    return gain(child.value, root.value) + gain(child.value, parent.value)


def shrinkage(strength: float) -> TreeRule:
    """A = W(c) - W(p), where W shrinks a value toward that of the state before it.

    W(root) = V(root) and W(x) = (m V(x) + s W(parent of x)) / (m + s), m being the number of leaves
    under x: as if s more responses through x had earned what its parent is worth. s = 0 is the mean
    rule.

    Args:
        strength: s, in responses; at least 0.
    """

    def rule(path: Sequence[Node]) -> float:
        before = after = path[0].value
        for node in path[1:]:
            before, weight = after, node.leaf_count
            after = (weight * node.value + strength * before) / (weight + strength)
        return gain(after, before)

    return rule


def difference(values: Sequence[float], reward: float) -> list[float]:
    """A of segment i = V(cut i+1) - V(cut i); the last segment ends with the response's own reward."""
    return [gain(after, before) for before, after in zip(values, [*values[1:], reward], strict=True)]


TREE_RULES: Mapping[str, TreeRule] = {
    "mean": mean,
    "leave_one_out": leave_one_out,
    "std": std,
    "global_local": global_local,
}
CHAIN_RULES: Mapping[str, ChainRule] = {"difference": difference}

#: The tree rule with a strength of its own, `algorithm.spo.shrinkage`.
SHRINKAGE = "shrinkage"

Rule = TypeVar("Rule")


class UnknownRule(ValueError):
    """No such rule; the message says which there are."""


def find_rule(name: str, known: Mapping[str, Rule]) -> Rule:
    """A rule by its name, or your own by `package.module:function`.

    Raises:
        UnknownRule: no rule of that name, or the function cannot be imported or called.
    """
    if name in known:
        return known[name]
    module, _, function = name.partition(":")
    if not module or not function or module.startswith("."):
        raise UnknownRule(f"choose one of {', '.join(known)}, or your own as package.module:function")
    try:
        rule = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever the module does when it is imported
        raise UnknownRule(f"cannot be imported ({error}); it must be on PYTHONPATH of every process") from None
    if not callable(rule):
        raise UnknownRule(f"{function} of {module} is not a function")
    return rule


def check_arguments(function: Callable[..., object], *arguments: str) -> None:
    """Check that a rule can be called with the arguments it will get.

    Raises:
        UnknownRule: naming them.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        raise UnknownRule(f"{function!r} must take ({', '.join(arguments)})") from None


def tree_rule(name: str, strength: float | None) -> TreeRule:
    """The tree rule that the settings name, see `find_rule`; `strength` is for `shrinkage`."""
    return find_rule(name, {**TREE_RULES, SHRINKAGE: shrinkage(strength or 0.0)})


def chain_rule(name: str) -> ChainRule:
    """The chain rule that the settings name, see `find_rule`."""
    return find_rule(name, CHAIN_RULES)
