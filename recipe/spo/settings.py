"""`algorithm.spo` as a typed, validated object; the one place that knows which settings are legal.

Every key is explained in `config/spo_trainer.yaml`. Everything is checked before Ray starts, and
each complaint names the key and says what to do.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.spo.credit import UnknownRule, chain_rule, find_rule, tree_rule
from recipe.spo.reader import Reader, SettingsError, is_list, unknown_key, whole

__all__ = ["SettingsError", "unknown_key"]

METHODS = ("tree", "chain", "group", "ppo")
TREE_PARTITIONS = ("fixed_length", "low_probability", "lines")
CHAIN_PARTITIONS = ("low_probability", "fixed_length", "equal_parts", "lines", "sentences")
NORMALIZATIONS = ("none", "batch", "micro_batch")
MASK_SOURCES = ("rollout", "trainer")


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """Shape of the tree.

    Attributes:
        branch_factors: children of a node at depth 0, 1, ...; its length is the tree's depth.
        segment_length: most tokens of a segment at every level but the last, which runs to the end
            of the response budget; one number, or one for each of those levels.
        partition: what ends a segment before that: nothing (`fixed_length`), its
            `cut_interval`-th improbable token (`low_probability`), or a line's end (`lines`).
        cut_interval: improbable tokens a segment, for `low_probability`.
    """

    branch_factors: tuple[int, ...]
    segment_length: int | tuple[int, ...]
    partition: str = "fixed_length"
    cut_interval: int | None = None

    @property
    def depth(self) -> int:
        return len(self.branch_factors)

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Token budget of each level but the last."""
        if isinstance(self.segment_length, int):
            return (self.segment_length,) * (self.depth - 1)
        return self.segment_length

    def segment_budget(self, depth: int, used: int, response_length: int) -> int:
        """Most tokens of a segment that leaves a node at `depth` with `used` response tokens."""
        left = response_length - used
        return left if depth == self.depth - 1 else min(self.segment_lengths[depth], left)

    @property
    def max_nodes(self) -> int:
        """Segments of a full tree, e.g. 6 + 36 + 216 = 258 for 6-6-6."""
        total, width = 0, 1
        for factor in self.branch_factors:
            width *= factor
            total += width
        return total


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """SPO-chain: responses, where they are cut, and how often each cut is continued.

    Attributes:
        trajectories: responses a question, the rows that train.
        continuations: K, fresh samples from each distinct cut, which give its value.
        partition: where to cut; see `recipe.spo.partition`, or your own as `package.module:function`.
        cut_interval: `low_probability`: every how many improbable tokens.
        segment_length: `fixed_length`: tokens a segment.
        parts: `equal_parts`: how many.
        max_steps: `lines` and `sentences`: most steps, the last one runs to the end; null: all.
    """

    trajectories: int
    continuations: int
    partition: str
    cut_interval: int | None = None
    segment_length: int | None = None
    parts: int | None = None
    max_steps: int | None = None


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Whole responses, credited as one segment each (GRPO, RLOO) or token by token (PPO).

    Attributes:
        responses: a question.
    """

    responses: int


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Which rows of the last steps a step trains.

    Attributes:
        rows_per_step: most rows a step trains; null: all there are.
        rows_per_question: most rows of one question in one step; null: no limit.
        max_age: steps that a left-over row may wait; 0: rows that do not train at once are dropped.
    """

    rows_per_step: int | None
    rows_per_question: int | None
    max_age: int


@dataclass(frozen=True, slots=True)
class SPOSettings:
    """`algorithm.spo`. See `config/spo_trainer.yaml` for what each key means."""

    method: str
    tree: TreeSettings | None
    chain: ChainSettings | None
    group: GroupSettings | None
    credit: str | None
    shrinkage: float
    normalize: str
    cut_threshold: float
    mask_threshold: float | None
    mask_source: str
    keep_zero_advantage: bool
    unfinished_reward: float
    optimizer_steps: int
    replay: ReplaySettings
    as_published_code: bool
    deterministic: bool
    dump_dir: str | None

    @property
    def tree_shape(self) -> TreeSettings:
        """The tree to sample; a group is a tree of depth one.

        Raises:
            ValueError: the method is a chain.
        """
        if self.group is not None:
            return TreeSettings((self.group.responses,), ())
        if self.tree is None:
            raise ValueError(f"method {self.method} does not sample a tree")
        return self.tree

    @property
    def rollout_mask_threshold(self) -> float | None:
        """Threshold of the mask that rows are made with; `None` where the trainer masks, or nothing does.

        PPO's advantages need whole responses, so its mask, if asked for, comes after them.
        """
        return None if self.mask_source == "trainer" or self.method == "ppo" else self.mask_threshold

    @property
    def trainer_masks(self) -> bool:
        """Whether the trainer makes the mask."""
        return self.mask_threshold is not None and self.rollout_mask_threshold is None

    @property
    def max_samples(self) -> int:
        """Most rows that a question can give."""
        return self.chain.trajectories if self.chain is not None else self.tree_shape.max_nodes


def settings_of(config: DictConfig, response_length: int) -> SPOSettings:
    """Read and check `algorithm.spo` of a whole configuration; see `parse_settings`."""
    node = config.algorithm.get("spo")
    plain = None if node is None else OmegaConf.to_container(node, resolve=True)
    return parse_settings(plain, response_length)


def parse_settings(node: Mapping[str, Any] | None, response_length: int) -> SPOSettings:
    """Read and check `algorithm.spo`.

    Args:
        node: the configuration node, as a mapping of plain values.
        response_length: `data.max_response_length`, in tokens.

    Raises:
        SettingsError: a key is missing, unknown, of the wrong type or out of range, or would be
            ignored.
    """
    if node is None:
        raise SettingsError(
            "algorithm.spo is missing: start from recipe/spo/config/spo_trainer.yaml (--config-name spo_trainer)"
        )
    read = Reader("algorithm.spo", node, [f.name for f in fields(SPOSettings)])
    method = read.choice("method", METHODS)
    shapes = {"tree": "tree", "chain": "chain", "group": "group", "ppo": "group"}
    for name in ("tree", "chain", "group"):
        if shapes[method] != name:
            read.unused(name, f"method {method} does not use it (method={name} selects it)")
    as_published = read.boolean("as_published_code")
    normalize = read.choice("normalize", NORMALIZATIONS)
    if as_published and normalize != "micro_batch":
        raise read.wrong("normalize", "as_published_code whitens by micro-batch: set normalize=micro_batch")
    if as_published and method != "tree" and not read.boolean("keep_zero_advantage"):
        raise read.wrong("keep_zero_advantage", "as_published_code keeps such rows, except of trees: set it to true")
    return SPOSettings(
        method=method,
        tree=_parse_tree(read.raw("tree"), response_length) if method == "tree" else None,
        chain=_parse_chain(read.raw("chain"), response_length) if method == "chain" else None,
        group=_parse_group(read.raw("group"), method) if shapes[method] == "group" else None,
        credit=_parse_credit(read, method),
        shrinkage=read.number("shrinkage", least=0.0),
        normalize=normalize,
        cut_threshold=read.probability("cut_threshold", or_null=""),
        mask_threshold=None
        if read.is_null("mask_threshold")
        else read.probability("mask_threshold", or_null=", or null for no mask"),
        mask_source=read.choice("mask_source", MASK_SOURCES),
        keep_zero_advantage=read.boolean("keep_zero_advantage"),
        unfinished_reward=read.number("unfinished_reward"),
        optimizer_steps=read.whole("optimizer_steps"),
        replay=_parse_replay(read.raw("replay")),
        as_published_code=as_published,
        deterministic=read.boolean("deterministic"),
        dump_dir=read.path("dump_dir"),
    )


def _parse_tree(node: Any, response_length: int) -> TreeSettings:
    read = Reader("algorithm.spo.tree", node, [f.name for f in fields(TreeSettings)])
    factors = read.whole_list("branch_factors", example="[6,6,6]")
    if not factors:
        raise SettingsError(
            f"{read.key('branch_factors')} is empty: give a list with one number a level, such as [6,6,6]"
        )
    if factors == (1,):
        raise read.wrong("branch_factors", "a single child has no sibling to be compared with")
    if all(factor == 1 for factor in factors):
        raise read.wrong("branch_factors", "some level must branch, or every advantage is zero")

    key, length, inner_levels = read.key("segment_length"), read.raw("segment_length"), len(factors) - 1
    lengths: int | tuple[int, ...]
    if is_list(length):
        lengths = tuple(whole(f"{key}[{level}]", n) for level, n in enumerate(length))
        if len(lengths) != inner_levels:
            raise SettingsError(
                f"{key} lists {len(lengths)} levels, but {len(factors)} branch factors need {inner_levels}: "
                "one for each level but the last, which runs to data.max_response_length"
            )
    else:
        lengths = whole(key, length)
    partition = read.choice("partition", TREE_PARTITIONS)
    tree = TreeSettings(factors, lengths, partition, _interval(read, partition))
    if sum(tree.segment_lengths) >= response_length:
        raise SettingsError(
            f"{key}: {inner_levels} levels of {list(tree.segment_lengths)} tokens leave nothing of "
            f"data.max_response_length={response_length} for the last level: shorten the segments, use fewer "
            "levels, or raise data.max_response_length"
        )
    return tree


def _parse_chain(node: Any, response_length: int) -> ChainSettings:
    read = Reader("algorithm.spo.chain", node, [f.name for f in fields(ChainSettings)])
    partition = str(read.raw("partition"))
    try:
        find_rule(partition, dict.fromkeys(CHAIN_PARTITIONS))
    except UnknownRule as error:
        raise read.wrong("partition", str(error)) from None
    used = {"segment_length": ("fixed_length",), "parts": ("equal_parts",), "max_steps": ("lines", "sentences")}
    for name, partitions in used.items():
        if partition not in partitions:
            read.unused(name, f"partition {partition} does not use it")
    chain = ChainSettings(
        trajectories=read.whole("trajectories"),
        continuations=read.whole("continuations"),
        partition=partition,
        cut_interval=_interval(read, partition),
        segment_length=read.whole("segment_length") if partition == "fixed_length" else None,
        parts=read.whole("parts", least=2) if partition == "equal_parts" else None,
        max_steps=None if read.is_null("max_steps") else read.whole("max_steps"),
    )
    if chain.segment_length is not None and chain.segment_length >= response_length:
        raise read.wrong(
            "segment_length", f"shorter than data.max_response_length={response_length}, or no response is ever cut"
        )
    return chain


def _interval(read: Reader, partition: str) -> int | None:
    if partition == "low_probability":
        return read.whole("cut_interval")
    read.unused("cut_interval", f"partition {partition} does not use it")
    return None


def _parse_group(node: Any, method: str) -> GroupSettings:
    read = Reader("algorithm.spo.group", node, [f.name for f in fields(GroupSettings)])
    group = GroupSettings(read.whole("responses"))
    if method == "group" and group.responses == 1:
        raise read.wrong("responses", "a single response has no sibling to be compared with")
    return group


def _parse_credit(read: Reader, method: str) -> str | None:
    if method == "ppo":
        read.unused("credit", "PPO's advantages come from its critic")
        return None
    name = read.raw("credit")
    try:
        chain_rule(str(name)) if method == "chain" else tree_rule(str(name), strength=0.0)
    except UnknownRule as error:
        raise read.wrong("credit", f"for method {method} {error}") from None
    return name


def _parse_replay(node: Any) -> ReplaySettings:
    read = Reader("algorithm.spo.replay", node, [f.name for f in fields(ReplaySettings)])
    replay = ReplaySettings(
        rows_per_step=None if read.is_null("rows_per_step") else read.whole("rows_per_step"),
        rows_per_question=None if read.is_null("rows_per_question") else read.whole("rows_per_question"),
        max_age=read.whole("max_age", least=0),
    )
    if replay.max_age and replay.rows_per_step is None and replay.rows_per_question is None:
        raise read.wrong("max_age", "no row is ever left over without rows_per_step or rows_per_question")
    return replay
