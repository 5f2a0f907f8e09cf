"""How many tokens a question generates on average, if its responses are as long as those of a sample.

Let L be the length of a response (EOS counted) and R the budget. Every path of a tree, and a state with its
continuation, is distributed as a response of the policy, so only the distribution of min(L, R) is needed.

Tree with w_d = b_1 * ... * b_d, its levels ending after c_d tokens (c_0 = 0, c_D = R):

    sum over d of w_d E[min(L, c_d) - min(L, c_(d-1))]

where c_d is the same for all paths, or random where segments end by probabilities or text.

Chain with T trajectories, K continuations and cuts c of a response of L tokens, r(c) = E[L - c | L > c]:

    T (E[L] + K E[sum over cuts c > 0 of r(c)]) + K E[L] P(some trajectory is cut at c = 0)

Exact for segments and cuts that follow from the length alone. Where they depend on probabilities or text, a segment
has `segment_tokens` on average, whatever the length of the response: every token is improbable with the same chance
cut_interval / segment_tokens, or ends a line of a tree with chance 1 / segment_tokens; a chain's text is cut evenly.
Equal states, which are sampled
once, are counted as often as they occur, but for the prompt: a policy that hardly varies generates less.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from recipe.spo.partition import equal_cuts, fixed_length_cuts
from recipe.spo.settings import ChainSettings, SPOSettings, TreeSettings


class NotExpected(ValueError):
    """What is given does not suffice for an expectation; the message says what is missing."""


def expected_tokens(
    settings: SPOSettings, lengths: Sequence[int], response_budget: int, step: int, segment_tokens: float | None
) -> float:
    """Mean generated tokens of one question.

    Args:
        settings: `algorithm.spo`.
        lengths: tokens of responses sampled as in training; at least one.
        response_budget: R, most tokens of a response.
        step: training step, which decides on the stage of a context schedule.
        segment_tokens: mean tokens of a segment, for partitions that do not follow from the length.

    Raises:
        NotExpected: the partition needs `segment_tokens`, or there are no lengths.
    """
    if not lengths:
        raise NotExpected("no response lengths")
    capped = sorted(min(length, response_budget) for length in lengths)
    if settings.chain is not None:
        return expected_chain_tokens(settings.chain, capped, segment_tokens)
    return expected_tree_tokens(settings.tree_at(step), capped, response_budget, segment_tokens)


def expected_tree_tokens(
    tree: TreeSettings, lengths: Sequence[int], response_budget: int, segment_tokens: float | None = None
) -> float:
    """Mean generated tokens of a tree; see the module.

    Args:
        tree: its shape.
        lengths: sampled lengths, none above `response_budget`.
        response_budget: R, most tokens of a response.
        segment_tokens: see `expected_tokens`.

    Raises:
        NotExpected: the partition needs `segment_tokens`.
    """
    ended = np.bincount(lengths, minlength=response_budget + 1).cumsum() / len(lengths)
    alive = 1 - ended[:response_budget]  # P(L > t): a path has a token at t = 0, 1, ...
    begun = np.ones(response_budget)  # P(the level has begun at t)
    total, width = 0.0, 1
    for factor, length in zip(tree.branch_factors, tree.segment_lengths + (None,), strict=True):
        width *= factor
        next_begun = np.zeros(response_budget)
        if length is not None:
            starts = np.diff(begun, prepend=0.0)
            next_begun = np.convolve(starts, _segment_lengths(tree, length, segment_tokens))[:response_budget].cumsum()
        total += width * float((alive * (begun - next_begun)).sum())
        begun = next_begun
    return total


def _segment_lengths(tree: TreeSettings, most: int, segment_tokens: float | None) -> np.ndarray:
    """Chances that an inner segment has 0, 1, ..., `most` tokens, in a response that does not end."""
    chances = np.zeros(most + 1)
    if tree.partition == "fixed_length":
        chances[most] = 1.0
        return chances
    interval = tree.cut_interval or 1
    chance = min(interval / _needed(segment_tokens, tree.partition), 1.0)
    seen = np.zeros(interval)  # chances of having seen 0, ..., interval - 1 improbable tokens
    seen[0] = 1.0
    for length in range(1, most + 1):  # the last of them is the segment's last
        chances[length] = chance * seen[-1]
        seen = (1 - chance) * seen + chance * np.append(0.0, seen[:-1])
    chances[most] += seen.sum()
    return chances


def expected_chain_tokens(chain: ChainSettings, lengths: Sequence[int], segment_tokens: float | None = None) -> float:
    """Mean generated tokens of a chain; see the module.

    Args:
        chain: its shape.
        lengths: sampled lengths, sorted.
        segment_tokens: see `expected_tokens`.

    Raises:
        NotExpected: the partition needs `segment_tokens`.
    """
    tail = list(accumulate(reversed(lengths), initial=0))  # tail[n]: sum of the n longest
    mean = tail[-1] / len(lengths)

    def longer(cut: float) -> int:
        return len(lengths) - bisect.bisect_right(lengths, cut)

    if chain.partition == "low_probability":
        chance = min(chain.cut_interval / _needed(segment_tokens, chain.partition), 1.0)
        at_prompt, *cut_at = _chances_of_a_cut(chance, chain.cut_interval, lengths[-1])
        from_prompt = 1 - (1 - at_prompt) ** chain.trajectories
        later = sum(p * (tail[longer(cut)] - longer(cut) * cut) for cut, p in enumerate(cut_at, 1)) / len(lengths)
    else:
        cuts = [cut for length in lengths for cut in _cuts(chain, length, segment_tokens) if cut > 0]
        from_prompt = 1.0  # every other partition begins with it
        later = sum(tail[longer(cut)] / longer(cut) - cut for cut in cuts) / len(lengths)
    return chain.trajectories * (mean + chain.continuations * later) + chain.continuations * mean * from_prompt


def _chances_of_a_cut(chance: float, interval: int, tokens: int) -> list[float]:
    """P(a response is cut at c) for c = 0, 1, ...: the token is improbable, and the next that counts."""
    seen = np.zeros(interval)  # chances of having seen so many improbable tokens, modulo the interval
    seen[0] = 1.0
    cuts = []
    for _ in range(tokens):
        cuts.append(chance * float(seen[0]))
        seen = (1 - chance) * seen + chance * np.roll(seen, 1)
    return cuts


def _cuts(chain: ChainSettings, length: int, segment_tokens: float | None) -> Sequence[float]:
    """Cuts of a response of some length."""
    if chain.partition == "fixed_length":
        return fixed_length_cuts(length, chain.segment_length)
    if chain.partition == "equal_parts":
        return equal_cuts(length, chain.parts)
    even = _needed(segment_tokens, chain.partition)
    return [i * even for i in range(math.ceil(length / even))][: chain.max_steps]


def _needed(segment_tokens: float | None, partition: str) -> float:
    if segment_tokens is None:
        raise NotExpected(
            f"how long a segment of partition {partition} is does not follow from the response's length: "
            "give algorithm.spo.expect.segment_tokens"
        )
    return segment_tokens
