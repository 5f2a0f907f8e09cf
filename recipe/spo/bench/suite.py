"""The methods that the command measures, from its options.

A tree is written `SHAPE,SHAPE,...@LENGTH`: branch factors of one family's sizes, such as `4-4-4,6-6-6`, and the tokens
of a segment at every level but the last. The last shape is the largest and is what is sampled.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recipe.spo.bench.methods import Method, chain_methods, group_methods, other_rules, shape_name, tree_methods
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.settings import ChainSettings, TreeSettings

_TREE = re.compile(r"\d+(-\d+)*(,\d+(-\d+)*)*@\d+")
GROUPS = (8, 16, 32, 64)
CONTINUATIONS = (1, 2, 4, 9)
TREES = ("3-3-3,4-4-4,6-6-6@12", "8-2-2,16-2-2@12", "12-2,24-2@16")
CUT_TREES = ("3-3-3,4-4-4,6-6-6@24",)
#: Chains whose gradient is looked at: few continuations, and the paper's.
GRADIENT_CONTINUATIONS = (1, 4)


@dataclass(frozen=True, slots=True)
class Suite:
    """Sizes of all methods.

    Attributes:
        groups: responses of a group; the first size's gradient is measured.
        trajectories: of a chain.
        continuations: K of chains.
        trees: see the module; the other rules are measured on the first one.
        cut_trees: the same for trees that end segments after improbable tokens.
        cut_interval: improbable tokens a segment, of chains and cut-point trees.
        shrinkage: strength of that rule.
    """

    groups: Sequence[int] = GROUPS
    trajectories: int = 4
    continuations: Sequence[int] = CONTINUATIONS
    trees: Sequence[str] = TREES
    cut_trees: Sequence[str] = CUT_TREES
    cut_interval: int = 2
    shrinkage: float = 4.0

    def methods(self, responses: int) -> list[Method]:
        """All methods, cheapest sizes first in each family.

        Args:
            responses: references that every rollout must hold.

        Raises:
            EvaluationError: an option that no rollout can have; the message names it.
        """
        _check("--groups", self.groups, max(responses, 2))
        _check("--trajectories", [self.trajectories], responses)
        _check("--continuations", self.continuations, 1)
        _check("--cut-interval", [self.cut_interval], 1)
        if not self.shrinkage >= 0:
            raise EvaluationError(f"--shrinkage {self.shrinkage} must be at least 0")
        groups, continuations = sorted(set(self.groups)), sorted(set(self.continuations))
        chain = ChainSettings(self.trajectories, 0, "low_probability", cut_interval=self.cut_interval)
        lines = ChainSettings(self.trajectories, 0, "lines", max_steps=25)
        measured = [k for k in continuations if k in GRADIENT_CONTINUATIONS] or continuations[:1]
        methods = [
            *group_methods(groups, groups[0]),
            *chain_methods("chain", chain, continuations, measured),
            *chain_methods("VinePPO lines", lines, continuations, measured),
        ]
        for number, text in enumerate(self.trees):
            shapes, length = parse_tree("--trees", text, responses)
            found = tree_methods("tree", shapes, TreeSettings(shapes[-1], length), measured_shape(shapes))
            methods += [*found, *(other_rules(found, self.shrinkage) if number == 0 else [])]
        for text in self.cut_trees:
            shapes, length = parse_tree("--cut-trees", text, responses)
            largest = TreeSettings(shapes[-1], length, "low_probability", self.cut_interval)
            methods += tree_methods("cut-point tree", shapes, largest, measured_shape(shapes))
        names = [method.name for method in methods]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise EvaluationError(f"--trees, --cut-trees: {twice} is there twice")
        return methods


def measured_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of a family, the shape whose gradient is looked at: the one before the largest."""
    return shapes[max(len(shapes) - 2, 0)]


def parse_tree(option: str, text: str, responses: int) -> tuple[list[tuple[int, ...]], int]:
    """Shapes and segment length of a family of trees.

    Raises:
        EvaluationError: it cannot be read, or a shape does not fit into the last one.
    """
    if not _TREE.fullmatch(text):
        raise EvaluationError(f"{option} {text!r} cannot be read; write shapes and a length, such as 4-4-4,6-6-6@12")
    listed, _, length = text.partition("@")
    shapes = [tuple(map(int, shape.split("-"))) for shape in listed.split(",")]
    for shape in shapes:
        if len(shape) < 2 or min(shape) < 1 or shape[0] < max(responses, 2):
            raise EvaluationError(
                f"{option} {text}: {shape_name(shape)} needs two levels or more, each at least 1 wide and the first "
                f"at least {max(responses, 2)} (--responses)"
            )
        if len(shape) != len(shapes[-1]) or any(a > b for a, b in zip(shape, shapes[-1], strict=True)):
            raise EvaluationError(f"{option} {text}: {shape_name(shape)} is not a part of {shape_name(shapes[-1])}")
    if int(length) < 1:
        raise EvaluationError(f"{option} {text}: a segment has at least 1 token")
    return shapes, int(length)


def _check(option: str, values: Sequence[int], least: int) -> None:
    for value in values:
        if value < least:
            raise EvaluationError(f"{option} {value} must be at least {least}")
