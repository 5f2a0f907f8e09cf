"""Which rows make a micro-batch when shared prefixes are computed once, and whether that pays.

In lexicographic order the rows of a tree stand together, so a micro-batch is an interval i..j of that order. Its trie
has as many nodes as the first row has tokens, plus those that each further row does not share with the one before it:

    nodes(i, j) = len_i + sum over i < t <= j of (len_t - shared_t)

and no other arrangement of rows into intervals shares more between neighbours. What an interval costs, in units of the
time that one token takes in the linear layers of the model:

    cost(i, j) = nodes + pair * visited + batch

where `visited` is how many (query, key) pairs attention looks at: all of nodes^2 where the mask is dense, only those of
a token and its ancestors where the kernel skips the rest; `pair` follows from the model's shape, `batch` is what a
micro-batch costs however small. A dense mask makes long intervals dear and short ones repeat their prefix, so the
cheapest cut is found by dynamic programming, best(j) = min over i of best(i) + cost(i, j), under the token budget.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipe.spo.packing import SortedRows


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of a pass, in tokens of the linear layers.

    Attributes:
        pair: of one (query, key) pair of attention.
        batch: of a micro-batch as such.
        dense: attention visits every pair of the trie, not only ancestors.
    """

    pair: float
    batch: float
    dense: bool

    def of_trie(self, nodes: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
        """Cost of a micro-batch of `nodes` nodes that have `ancestors` (node, ancestor) pairs in all; any shape."""
        return nodes + self.pair * (nodes.astype(float) ** 2 if self.dense else ancestors) + self.batch

    def of_rows(self, lengths: np.ndarray, budget: int) -> float:
        """Cost of the same rows one by one, packed without loss under a token budget; padding is not counted."""
        visited = (lengths.astype(float) ** 2).sum() / (1 if self.dense else 2)
        return float(lengths.sum() + self.pair * visited + self.batch * np.ceil(lengths.sum() / budget))


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows of a batch, cut into micro-batches.

    Attributes:
        groups: the caller's row numbers, a micro-batch each; every row in exactly one.
        tokens: of all rows.
        nodes: that are computed, over all micro-batches.
        distinct: that a single micro-batch would compute.
        cost: of these micro-batches, see `Cost`.
        rows_cost: of the rows one by one.
    """

    groups: tuple[tuple[int, ...], ...]
    tokens: int
    nodes: int
    distinct: int
    cost: float
    rows_cost: float


def group_rows(rows: SortedRows, budget: int, cost: Cost, at_least: int = 1) -> Grouping:
    """Cut rows into the cheapest micro-batches of at most `budget` distinct tokens each.

    Args:
        rows: sorted rows.
        budget: most nodes of a micro-batch.
        cost: what to minimise.
        at_least: fewest micro-batches; where ranks compute in step, all need the same number.

    Raises:
        ValueError: a row is longer than the budget, or there are fewer rows than micro-batches.
    """
    lengths, shared = rows.lengths, rows.shared
    if lengths.max() > budget:
        raise ValueError(f"a row has {lengths.max()} tokens, more than the {budget} that a micro-batch may have")
    if at_least > len(lengths):
        raise ValueError(f"{len(lengths)} rows cannot make {at_least} micro-batches")
    # A node at depth d has d + 1 ancestors, itself among them.
    nodes = _Intervals(lengths, shared)
    ancestors = _Intervals(lengths * (lengths + 1) // 2, shared * (shared + 1) // 2)
    count = len(lengths)
    best, cut = np.full(count + 1, np.inf), np.zeros(count + 1, dtype=np.int64)
    best[0] = 0.0
    for stop in range(1, count + 1):
        size = nodes.up_to(stop)
        total = best[:stop] + np.where(size <= budget, cost.of_trie(size, ancestors.up_to(stop)), np.inf)
        cut[stop] = total.argmin()
        best[stop] = total[cut[stop]]
    intervals, stop = [], count
    while stop:
        intervals.append((int(cut[stop]), stop))
        stop = int(cut[stop])
    intervals = _split(intervals[::-1], shared, nodes, at_least)
    sizes = np.array([nodes.of(*interval) for interval in intervals])
    pairs = np.array([ancestors.of(*interval) for interval in intervals])
    return Grouping(
        groups=tuple(tuple(rows.order[start:stop].tolist()) for start, stop in intervals),
        tokens=rows.tokens,
        nodes=int(sizes.sum()),
        distinct=rows.distinct_tokens,
        cost=float(cost.of_trie(sizes, pairs).sum()),
        rows_cost=cost.of_rows(lengths, budget),
    )


class _Intervals:
    """Sums over intervals of rows that count the first row whole and of the others what they do not share."""

    def __init__(self, whole: np.ndarray, shared: np.ndarray) -> None:
        self.whole = whole  # shape (R,), of each row
        self.fresh = np.concatenate([[0], np.cumsum(whole - shared)])  # shape (R + 1,)

    def up_to(self, stop: int) -> np.ndarray:
        """Of the intervals start..stop-1, for each start below `stop`; shape (stop,)."""
        return self.whole[:stop] + self.fresh[stop] - self.fresh[1 : stop + 1]

    def of(self, start: int, stop: int) -> int:
        """Of one interval."""
        return int(self.whole[start] + self.fresh[stop] - self.fresh[start + 1])


def _split(
    intervals: list[tuple[int, int]], shared: np.ndarray, nodes: _Intervals, at_least: int
) -> list[tuple[int, int]]:
    """Cut the largest micro-batches where least is shared, until there are enough."""
    while len(intervals) < at_least:
        largest = max((i for i in intervals if i[1] - i[0] > 1), key=lambda i: nodes.of(*i))
        at = largest[0] + 1 + int(shared[largest[0] + 1 : largest[1]].argmin())
        place = intervals.index(largest)
        intervals[place : place + 1] = [(largest[0], at), (at, largest[1])]
    return intervals
