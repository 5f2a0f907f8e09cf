"""How many tokens a question generates on average, from a sample of the policy's responses.

Every path of a tree is distributed as a response of the policy, and so is a state of a chain with its continuation. So
responses that were sampled one by one tell what trees and chains will cost, before any has been sampled.

Tree with w_d = b_1 * ... * b_d, where a response has n_d tokens at level d, by the tree's own rule for segments:

    mean over responses of sum over d of w_d n_d

Chain with T trajectories and K continuations, by taking T responses of a question at a time and cutting them by
the chain's own rule; equal states count once, as they are sampled once:

    mean over questions of (tokens of the T + K sum over distinct states of the mean rest)

where the rest behind a state of c tokens is the mean of L - c over the question's responses of L > c tokens: not that
of the response which was cut there, since a cut may have been chosen by what follows it.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recipe.spo.cutting import Decode, chain_partition, tree_stop
from recipe.spo.settings import ChainSettings, SPOSettings, TreeSettings
from recipe.spo.stopping import StoppingRule
from recipe.spo.tree import Node


@dataclass(frozen=True, slots=True)
class Sample:
    """Responses of a policy, and what is known of them.

    Attributes:
        groups: of each question; where only lengths are known the token ids are made up, and differ between responses.
        token_ids: whether the token ids are the sampled ones.
        log_probs: whether the log-probs are there; if not, they are empty.
    """

    groups: tuple[tuple[Node, ...], ...]
    token_ids: bool
    log_probs: bool


class NotExpected(ValueError):
    """What is given does not suffice for an expectation; the message says what is missing."""


def expected_tokens(
    settings: SPOSettings, sample: Sample, response_budget: int, step: int, decode: Decode | None = None
) -> float:
    """Mean generated tokens of one question.

    Args:
        settings: `algorithm.spo`.
        sample: responses of some questions, sampled as in training.
        response_budget: R, most tokens of a response; longer ones are cut off.
        step: training step, which decides on the stage of a context schedule.
        decode: token ids -> text, for cuts by text.

    Raises:
        NotExpected: the sample has too few responses of a question, or lacks what the cuts depend on.
    """
    shape = settings.chain or settings.tree_shape
    if shape.partition == "low_probability" and not sample.log_probs:
        raise NotExpected("partition low_probability needs the responses' log-probs (column `log_probs`)")
    if cuts_by_text(settings) and not (sample.token_ids and decode):
        raise NotExpected(f"partition {shape.partition} needs the responses' token ids, and a tokenizer that is here")
    if settings.chain is None:
        tree = settings.tree_at(step)
        stop = tree_stop(tree, settings.cut_threshold, decode)
        responses = [response for group in sample.groups for response in group]
        return sum(tree_tokens(tree, response, response_budget, stop) for response in responses) / len(responses)
    chain, cut = settings.chain, chain_partition(settings.chain, settings.cut_threshold, decode)
    fewest = min(map(len, sample.groups))
    if fewest < chain.trajectories:
        raise NotExpected(f"a chain has {chain.trajectories} responses a question, the sample only {fewest}")
    return sum(chain_tokens(chain, group, response_budget, cut) for group in sample.groups) / len(sample.groups)


def cuts_by_text(settings: SPOSettings) -> bool:
    """Whether a response has to be decoded to be cut."""
    shape = settings.chain or settings.tree_shape
    return shape.partition not in ("low_probability", "fixed_length", "equal_parts")


def tree_tokens(tree: TreeSettings, response: Node, response_budget: int, stop: StoppingRule) -> float:
    """Tokens of the tree all of whose paths are like this response; see the module.

    Args:
        tree: its shape.
        response: of the policy.
        response_budget: R.
        stop: the tree's rule for the end of a segment.
    """
    total, width, used, length = 0, 1, 0, min(len(response.token_ids), response_budget)
    for depth, factor in enumerate(tree.branch_factors):
        width *= factor
        budget = tree.segment_budget(depth, used, response_budget)
        segment = slice(used, min(used + budget, length))
        # On the last level nothing ends a segment but the budget.
        end = None if depth == tree.depth - 1 else stop(response.token_ids[segment], response.log_probs[segment])
        tokens = min(budget if end is None else end, length - used)
        total, used = total + width * tokens, used + tokens
    return total


def chain_tokens(
    chain: ChainSettings, group: Sequence[Node], response_budget: int, cut: Callable[[Node], list[int]]
) -> float:
    """Mean tokens of the chains that can be made of a question's responses, T at a time; see the module.

    Args:
        chain: its shape.
        group: responses, at least T.
        response_budget: R.
        cut: the chain's partition.
    """
    capped = [Node(r.token_ids[:response_budget], r.log_probs[:response_budget], r.finished) for r in group]
    lengths = np.array([len(response.token_ids) for response in capped])

    def rest(tokens: int) -> float:
        return float((lengths[lengths > tokens] - tokens).mean())

    # A state as bytes: prefixes compare and hash fast.
    ids = [np.asarray(response.token_ids, dtype=np.int64).tobytes() for response in capped]
    size = np.dtype(np.int64).itemsize
    chains = len(group) // chain.trajectories
    total = 0.0
    for first in range(0, chains * chain.trajectories, chain.trajectories):
        mine = range(first, first + chain.trajectories)
        states = {(at, ids[i][: size * at]) for i in mine for at in cut(capped[i])}
        total += sum(lengths[i] for i in mine) + chain.continuations * sum(rest(at) for at, _ in states)
    return float(total / chains)
