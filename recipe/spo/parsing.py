"""Reading `algorithm.spo`: the one place that knows which settings are legal.

Everything is checked before Ray starts, and each complaint names the key and says what to do.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.spo.credit import SHRINKAGE, UnknownRule, chain_rule, check_arguments, find_rule, tree_rule
from recipe.spo.reader import Reader, SettingsError
from recipe.spo.schedule_parsing import parse_schedule, read_segment_length
from recipe.spo.settings import (
    ChainSettings,
    DumpSampleSettings,
    GroupSettings,
    ReplaySettings,
    SPOSettings,
    TreeSettings,
)

METHODS = ("tree", "chain", "group", "ppo")
TREE_PARTITIONS = ("fixed_length", "low_probability", "lines")
CHAIN_PARTITIONS = ("low_probability", "fixed_length", "equal_parts", "lines", "sentences")
NORMALIZATIONS = ("none", "batch", "micro_batch")
MASK_SOURCES = ("rollout", "trainer")
SHARE_PREFIXES = ("off", "auto", "on")


def settings_of(config: DictConfig, response_length: int) -> SPOSettings:
    """Read and check `algorithm.spo` of a whole configuration; see `parse_settings`."""
    node = config.algorithm.get("spo")
    plain = None if node is None else OmegaConf.to_container(node, resolve=True)
    return parse_settings(plain, response_length, config.data.max_prompt_length)


def parse_settings(
    node: Mapping[str, Any] | None, response_length: int, prompt_length: int | None = None
) -> SPOSettings:
    """Read and check `algorithm.spo`.

    Args:
        node: the configuration node, as a mapping of plain values.
        response_length: `data.max_response_length`, in tokens.
        prompt_length: `data.max_prompt_length`; `context_schedule` is checked against it.

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
            read.unused(name, f"method {method} does not use it (method=NAME on the command line selects a method)")
    tree = _parse_tree(read.raw("tree"), response_length) if method == "tree" else None
    chain = _parse_chain(read.raw("chain"), response_length) if method == "chain" else None
    settings = SPOSettings(
        method=method,
        tree=tree,
        chain=chain,
        group=_parse_group(read.raw("group"), method) if shapes[method] == "group" else None,
        credit=_parse_credit(read, method),
        shrinkage=_parse_shrinkage(read),
        normalize=read.choice("normalize", NORMALIZATIONS),
        cut_threshold=read.probability("cut_threshold", or_null=""),
        mask_threshold=None
        if read.is_null("mask_threshold")
        else read.probability("mask_threshold", or_null=", or null for no mask"),
        mask_source=read.choice("mask_source", MASK_SOURCES),
        keep_zero_advantage=read.boolean("keep_zero_advantage"),
        unfinished_reward=read.number("unfinished_reward"),
        stop=read.texts("stop"),
        optimizer_steps=read.whole("optimizer_steps"),
        replay=_parse_replay(read.raw("replay")),
        context_schedule=parse_schedule(read, tree, chain, response_length, prompt_length),
        token_budget=None if read.is_null("token_budget") else read.whole("token_budget"),
        expect_responses=_parse_expect(read),
        keep_best=_parse_keep_best(read),
        share_prefixes=_parse_share_prefixes(read),
        as_published_code=read.boolean("as_published_code"),
        deterministic=read.boolean("deterministic"),
        dump_dir=read.path("dump_dir"),
        dump_sample=None if read.is_null("dump_sample") else _parse_dump_sample(read.raw("dump_sample")),
    )
    _check_together(read, settings)
    return settings


def _check_together(read: Reader, settings: SPOSettings) -> None:
    """Refuse what would be ignored, or is not what it says."""
    if settings.method == "ppo" and settings.normalize != "batch":
        raise read.wrong("normalize", "verl whitens PPO's advantages over the batch: set it to batch")
    if settings.method == "ppo" and settings.keep_zero_advantage:
        raise read.wrong("keep_zero_advantage", "PPO trains every response: set it to false")
    if settings.mask_source == "trainer" and settings.mask_threshold is None:
        raise read.wrong("mask_source", "there is no mask without mask_threshold")
    rows = settings.replay.rows_per_step
    if rows is not None and rows < settings.optimizer_steps:
        raise SettingsError(
            f"algorithm.spo.replay.rows_per_step is {rows}: at least one row for each of optimizer_steps="
            f"{settings.optimizer_steps}"
        )
    if settings.share_prefixes != "off" and settings.normalize == "micro_batch" and not settings.as_published_code:
        raise read.wrong(
            "share_prefixes",
            "normalize=micro_batch whitens over rows that are computed together, which sharing chooses: set it to off",
        )
    if not settings.as_published_code:
        return
    if settings.method == "ppo":
        raise read.wrong("as_published_code", "it is the loss of the authors' chains, trees and groups, not of PPO")
    if settings.normalize != "micro_batch":
        raise read.wrong("normalize", "as_published_code whitens by micro-batch: set normalize=micro_batch")
    if settings.mask_threshold is not None and settings.mask_source != "trainer":
        raise read.wrong("mask_source", "as_published_code masks by the trainer's probabilities: set it to trainer")
    if settings.method != "tree" and not settings.keep_zero_advantage:
        raise read.wrong("keep_zero_advantage", "as_published_code keeps such rows, except of trees: set it to true")


def _parse_keep_best(read: Reader) -> str | bool | None:
    value = read.raw("keep_best")
    if value is None or value is False:
        return None
    if value is not True and not (isinstance(value, str) and value.startswith("val-")):
        raise read.wrong("keep_best", "true (validation accuracy), the name of a validation metric (val-...), or null")
    return value


def _parse_expect(read: Reader) -> int | str | None:
    responses = read.raw("expect_responses")
    if responses is None or (isinstance(responses, str) and responses.endswith(".parquet")):
        return responses
    if isinstance(responses, str):
        raise read.wrong("expect_responses", "a number of tokens, or a parquet file of responses")
    return read.whole("expect_responses")


def _parse_dump_sample(node: Any) -> DumpSampleSettings:
    read = Reader("algorithm.spo.dump_sample", node, [f.name for f in fields(DumpSampleSettings)])
    return DumpSampleSettings(
        every_steps=read.whole("every_steps"),
        questions=read.whole("questions"),
        max_mib=read.number("max_mib", least=1.0),
    )


def _parse_share_prefixes(read: Reader) -> str:
    if isinstance(read.raw("share_prefixes"), bool):  # what YAML reads an on or off without quotes as
        return "on" if read.raw("share_prefixes") else "off"
    return read.choice("share_prefixes", SHARE_PREFIXES)


def _parse_shrinkage(read: Reader) -> float | None:
    if read.raw("credit") == SHRINKAGE:
        return read.number("shrinkage", least=0.0)
    read.unused("shrinkage", "only credit=shrinkage uses it")
    return None


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

    key, inner_levels = read.key("segment_length"), len(factors) - 1
    lengths = read_segment_length(key, read.raw("segment_length"), len(factors))
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
        own = find_rule(partition, dict.fromkeys(CHAIN_PARTITIONS))
        if own is not None:
            check_arguments(own, "response", "decode")
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
        if method == "chain":
            check_arguments(chain_rule(str(name)), "values", "reward")
        else:
            check_arguments(tree_rule(str(name), strength=0.0), "path")
    except UnknownRule as error:
        raise read.wrong("credit", f"for method {method}: {error}") from None
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
