"""From a rollout with values to samples with credit: every sampled token gets its segment's advantage.

A sample is what can become one training row: a segment of a tree, with the path before it as context,
or a whole response of a chain, with a segment's advantage on each of its tokens.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from recipe.spo.chain import ChainRollout
from recipe.spo.credit import ZERO_ADVANTAGE, ChainRule, TreeRule, difference, mean
from recipe.spo.partition import segments
from recipe.spo.tree import Node, walk


@dataclass(slots=True, frozen=True)
class Sample:
    """Sampled tokens with their credit; the per-token tuples all have the length of `token_ids`.

    Attributes:
        path: which segment of the tree (child indices from the root), or which response (its index).
        prefix_ids: response tokens before these (the context is prompt + prefix_ids).
        token_ids: the tokens.
        log_probs: their log-probabilities when sampled.
        advantages: A of the segment that each token belongs to; 0 for a token of no segment.
        score: value of the state after the tokens; the reward, where the response ends there.
    """

    path: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    advantages: tuple[float, ...]
    score: float


def tree_samples(root: Node, rule: TreeRule = mean) -> Iterator[Sample]:
    """Give every segment of a tree its advantage.

    Args:
        root: a tree on which `recipe.spo.tree.compute_values` has run.
        rule: the credit rule, see `recipe.spo.credit`.

    Yields:
        One sample a segment, depth first; those without signal carry exact zeros.

    Raises:
        ValueError: values are missing, or the rule does not give a finite number.
    """
    for visit in walk(root):
        if visit.parent is None:
            continue
        if visit.node.value is None or visit.parent.value is None:
            raise ValueError(f"node {visit.path} has no value: call compute_values first")
        advantage = _clean(rule((*visit.ancestors, visit.node)))
        yield Sample(
            path=visit.path,
            prefix_ids=visit.prefix_ids,
            token_ids=tuple(visit.node.token_ids),
            log_probs=tuple(visit.node.log_probs),
            advantages=(advantage,) * len(visit.node.token_ids),
            score=visit.node.value,
        )


def chain_samples(rollout: ChainRollout, rule: ChainRule = difference) -> Iterator[Sample]:
    """Give every token of a chain's responses the advantage of its segment (paper, section 4.1).

    Args:
        rollout: a rollout with all rewards in place.
        rule: the credit rule, see `recipe.spo.credit`.

    Yields:
        One sample a response. Tokens before the first cut, and all tokens of a response without
        cuts, carry zero.

    Raises:
        ValueError: a reward or a value is missing, the cuts are none, or the rule does not give one
            finite number a segment.
    """
    values = rollout.values()
    for index, trajectory in enumerate(rollout.trajectories):
        response, cuts = trajectory.response, trajectory.cuts
        if response.reward is None:
            raise ValueError(f"response {index} has no reward: grade every ending before computing advantages")
        credits = rule([values[trajectory.state(cut)] for cut in cuts], response.reward) if cuts else []
        if len(credits) != len(cuts):
            raise ValueError(f"the credit rule gave {len(credits)} advantages for {len(cuts)} segments")
        advantages = [0.0] * len(response.token_ids)
        for (begin, end), credit in zip(segments(cuts, len(advantages)), credits, strict=True):
            advantages[begin:end] = [_clean(credit)] * (end - begin)
        yield Sample(
            path=(index,),
            prefix_ids=(),
            token_ids=tuple(response.token_ids),
            log_probs=tuple(response.log_probs),
            advantages=tuple(advantages),
            score=response.reward,
        )


def _clean(advantage: float) -> float:
    if not math.isfinite(advantage):
        raise ValueError(f"the credit rule gave {advantage}: an advantage must be a finite number")
    return float(advantage) if abs(advantage) > ZERO_ADVANTAGE else 0.0
