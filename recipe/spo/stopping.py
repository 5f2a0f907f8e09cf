"""Where a segment of a tree ends before its budget is spent.

A tree's parent is worth the mean of its children. That holds only if a child's end is decided by the
child's own tokens, without a look at what follows (a stopping time): then the state at its end is
a fair draw, and whatever was sampled beyond it is a fair draw from that state. So, unlike a cut of
SPO-chain, which stands *before* an improbable token, a segment of a tree ends *right after* its
k-th improbable token: with its decision, not before it. Ending it before would favour states from
which something improbable happened to follow, and bias V(parent). The chain has no such means.

These partitions are ours: the paper's tree cuts by length alone. Equal parts and sentences, whose ends
show only later, are for chains.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

#: (token ids, log-probabilities) of a segment so far -> its length, if it ends there; else None.
#: It must not change its mind when tokens are added.
StoppingRule = Callable[[Sequence[int], Sequence[float]], int | None]


def at_full_length(token_ids: Sequence[int], log_probs: Sequence[float]) -> int | None:
    """Never before the budget is spent (the paper's tree)."""
    return None


def after_improbable_tokens(threshold: float, interval: int) -> StoppingRule:
    """Right after the `interval`-th token with p < threshold, strictly.

    Args:
        threshold: the cut threshold, in (0, 1].
        interval: improbable tokens a segment, at least 1.
    """
    if interval < 1:
        raise ValueError(f"interval is {interval}: it must be at least 1")

    def rule(token_ids: Sequence[int], log_probs: Sequence[float]) -> int | None:
        seen = 0
        for index, log_prob in enumerate(log_probs):
            seen += math.exp(log_prob) < threshold
            if seen == interval:
                return index + 1
        return None

    return rule


def after_line(is_line_end: Callable[[int], bool]) -> StoppingRule:
    """Right after the first token that ends a line.

    Args:
        is_line_end: whether a token's text holds a newline.
    """

    def rule(token_ids: Sequence[int], log_probs: Sequence[float]) -> int | None:
        return next((index + 1 for index, token in enumerate(token_ids) if is_line_end(token)), None)

    return rule
