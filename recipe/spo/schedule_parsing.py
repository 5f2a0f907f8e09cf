"""Reading `algorithm.spo.context_schedule`: every stage must have room for what its method samples.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from recipe.spo.reader import Reader, SettingsError, is_list, whole
from recipe.spo.schedule import ContextSchedule, Stage
from recipe.spo.settings import ChainSettings, TreeSettings


def read_segment_length(key: str, value: Any, levels: int) -> int | tuple[int, ...]:
    """Tokens of a tree's segments: one number, or one for each level but the last.

    Args:
        key: the setting, for the complaint.
        value: its value.
        levels: depth of the tree.

    Raises:
        SettingsError: not whole numbers, or a wrong number of them.
    """
    if not is_list(value):
        return whole(key, value)
    lengths = tuple(whole(f"{key}[{level}]", n) for level, n in enumerate(value))
    if len(lengths) != levels - 1:
        raise SettingsError(
            f"{key} lists {len(lengths)} levels, but {levels} branch factors need {levels - 1}: "
            "one for each level but the last, which runs to data.max_response_length"
        )
    return lengths


def parse_schedule(
    read: Reader,
    tree: TreeSettings | None,
    chain: ChainSettings | None,
    response_length: int,
    prompt_length: int | None,
) -> ContextSchedule | None:
    """Read the stages.

    Args:
        read: the node `algorithm.spo`.
        tree: its tree, if it samples trees.
        chain: its chain, if it samples chains.
        response_length: `data.max_response_length`, in tokens.
        prompt_length: `data.max_prompt_length`, in tokens.

    Returns:
        The schedule; `None` if there is none.

    Raises:
        SettingsError: a stage that cannot work; names its key.
    """
    if read.is_null("context_schedule"):
        return None
    nodes, where = read.raw("context_schedule"), read.key("context_schedule")
    if not is_list(nodes) or not nodes:
        raise read.wrong("context_schedule", "give a list of stages such as [{from_step: 1, context: 2048}], or null")
    if prompt_length is None:
        raise SettingsError(f"{where} counts the prompt too: set data.max_prompt_length")
    stages: list[Stage] = []
    for number, node in enumerate(nodes):
        if isinstance(node, Mapping):
            node = {"segment_length": None, **node}
        stage_read = Reader(f"{where}[{number}]", node, [f.name for f in fields(Stage)])
        stage = Stage(
            from_step=_from_step(stage_read, stages),
            context=_context(stage_read, response_length, prompt_length),
            segment_length=_stage_segment_length(stage_read, tree),
        )
        _check_room(stage_read, stage, tree, chain, response_length, prompt_length)
        stages.append(stage)
    return ContextSchedule(tuple(stages))


def _from_step(read: Reader, before: list[Stage]) -> int:
    step = read.whole("from_step")
    if not before and step != 1:
        raise read.wrong("from_step", "the first stage begins with step 1")
    if before and step <= before[-1].from_step:
        raise read.wrong(
            "from_step", f"it must be later than that of the stage before it, which begins with {before[-1].from_step}"
        )
    return step


def _context(read: Reader, response_length: int, prompt_length: int) -> int:
    context, full = read.whole("context"), prompt_length + response_length
    if context > full:
        raise read.wrong(
            "context",
            f"it is more than data.max_prompt_length + data.max_response_length = {full}; "
            f"raise data.max_response_length to {context - prompt_length} or more",
        )
    if context <= prompt_length:
        raise read.wrong(
            "context", f"it must exceed data.max_prompt_length={prompt_length}, or a long prompt leaves no response"
        )
    return context


def _stage_segment_length(read: Reader, tree: TreeSettings | None) -> int | tuple[int, ...] | None:
    if tree is None:
        read.unused("segment_length", "in a stage, only trees have one")
    if read.is_null("segment_length"):
        return None
    return read_segment_length(read.key("segment_length"), read.raw("segment_length"), tree.depth)


def _check_room(
    read: Reader,
    stage: Stage,
    tree: TreeSettings | None,
    chain: ChainSettings | None,
    response_length: int,
    prompt_length: int,
) -> None:
    """Even the longest prompt's response reaches the tree's last level, or is cut."""
    least = stage.response_budget(prompt_length, response_length)
    if tree is not None:
        shape = tree if stage.segment_length is None else replace(tree, segment_length=stage.segment_length)
        if sum(shape.segment_lengths) >= least:
            raise SettingsError(
                f"{read.where}: {len(shape.segment_lengths)} levels of {list(shape.segment_lengths)} tokens leave "
                f"nothing for the last level of the {least} response tokens that a prompt of data.max_prompt_length="
                f"{prompt_length} leaves of context={stage.context}: set a shorter segment_length in the stage, or "
                "a larger context"
            )
    if chain is not None and chain.segment_length is not None and chain.segment_length >= least:
        raise read.wrong(
            "context", f"a response of {least} tokens is never cut with chain.segment_length={chain.segment_length}"
        )
