"""From settings to functions: the partition that a chain or a tree was asked for.

Chains are cut when a response is complete (`recipe.spo.partition`), trees while they grow
(`recipe.spo.stopping`). Text partitions need the tokenizer's `decode`; nothing is tokenised again.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from recipe.spo.credit import find_rule
from recipe.spo.partition import (
    equal_cuts,
    fixed_length_cuts,
    low_probability_cuts,
    step_cuts,
    token_starts,
    visible_starts,
)
from recipe.spo.settings import ChainSettings, SPOSettings, TreeSettings
from recipe.spo.steps import STEP_RULES
from recipe.spo.stopping import StoppingRule, after_improbable_tokens, after_line, at_full_length
from recipe.spo.tree import Node

Decode = Callable[[Sequence[int]], str]
#: (response, decode) -> cuts; what a partition of your own must be.
ResponsePartition = Callable[[Node, Decode], list[int]]


def cutting_rule(settings: SPOSettings, decode: Decode) -> Callable[[Node], list[int]] | StoppingRule:
    """Where the rollouts of a run are cut: a chain's responses, or a tree's segments while they grow.

    Args:
        settings: `algorithm.spo`; cuts have `cut_threshold`, not the mask's.
        decode: token ids -> text.
    """
    if settings.chain is not None:
        return chain_partition(settings.chain, settings.cut_threshold, decode)
    return tree_stop(settings.tree_shape, settings.cut_threshold, decode)


def chain_partition(shape: ChainSettings, cut_threshold: float, decode: Decode) -> Callable[[Node], list[int]]:
    """Where a chain's responses are cut.

    Args:
        shape: names the partition, or gives it as `package.module:function`.
        cut_threshold: probability below which a token counts as improbable.
        decode: token ids -> text.

    Raises:
        UnknownRule: no such partition.
    """

    def low_probability(response: Node, decode: Decode) -> list[int]:
        return low_probability_cuts(response.log_probs, cut_threshold, shape.cut_interval)

    def fixed_length(response: Node, decode: Decode) -> list[int]:
        return fixed_length_cuts(len(response.token_ids), shape.segment_length)

    def equal_parts(response: Node, decode: Decode) -> list[int]:
        return equal_cuts(len(response.token_ids), shape.parts)

    def steps(rule: Callable[[str], list[int]], response: Node, decode: Decode) -> list[int]:
        text, starts = token_starts(response.token_ids, decode)
        return step_cuts(visible_starts(text, starts), rule(text), shape.max_steps)

    known: Mapping[str, ResponsePartition] = {
        "low_probability": low_probability,
        "fixed_length": fixed_length,
        "equal_parts": equal_parts,
        **{name: functools.partial(steps, rule) for name, rule in STEP_RULES.items()},
    }
    partition = find_rule(shape.partition, known)
    return lambda response: partition(response, decode)


def tree_stop(shape: TreeSettings, cut_threshold: float, decode: Decode) -> StoppingRule:
    """Where a tree's segments end before their budget is spent.

    Args:
        shape: names the partition.
        cut_threshold: probability below which a token counts as improbable.
        decode: token ids -> text.
    """
    if shape.partition == "low_probability":
        return after_improbable_tokens(cut_threshold, shape.cut_interval)
    if shape.partition == "lines":
        return after_line(functools.lru_cache(maxsize=None)(lambda token: "\n" in decode([token])))
    return at_full_length
