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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipe.spo.packing import SortedRows, sort_rows


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of a pass, in tokens of the linear layers.

    Attributes:
        pair: of one (query, key) pair of a trie's attention.
        batch: of a micro-batch as such.
        dense: attention visits every pair of the trie, not only ancestors.
        row_pair: of a pair of a row's attention, which another kernel may compute; `None`: as `pair`.
    """

    pair: float
    batch: float
    dense: bool
    row_pair: float | None = None

    def of_trie(self, nodes: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
        """Cost of a micro-batch of `nodes` nodes that have `ancestors` (node, ancestor) pairs in all; any shape."""
        return nodes + self.pair * (nodes.astype(float) ** 2 if self.dense else ancestors) + self.batch

    def of_rows(self, lengths: np.ndarray, budget: int) -> float:
        """Cost of the same rows one by one, packed without loss under a token budget; padding is not counted."""
        visited = (lengths.astype(float) ** 2).sum() / (1 if self.dense else 2)
        pair = self.pair if self.row_pair is None else self.row_pair
        return float(lengths.sum() + pair * visited + self.batch * np.ceil(lengths.sum() / budget))


#: Time of attention under a dense mask over what its multiplications alone would take. Measured: torch 2.13, float32,
#: one CPU thread, SmolLM2-135M's layers, 64 to 2,048 tokens, forward 1.17, forward and backward 1.26.
DENSE_SLOWDOWN = 1.25
#: The same of FlexAttention on a GPU, and of the flash-attention that rows have there: guesses, NOT MEASURED.
SPARSE_SLOWDOWN, FLASH_SLOWDOWN = 2.5, 1.5
#: What a micro-batch costs as such, in tokens: on the CPU measured with the above, on a GPU a guess, NOT MEASURED.
DENSE_BATCH, SPARSE_BATCH = 16.0, 512.0
#: In `auto`, sharing has to promise to take at most this part of the rows' time.
WORTHWHILE = 0.95


def cost_of_model(hidden: int, inner: int, heads: int, key_heads: int, head_size: int, dense: bool) -> Cost:
    """The cost of a model with these layers.

    A token takes 2 * weights multiplications and additions in a layer's linear modules, a (query, key) pair
    4 * heads * head size in its attention; with the weights of a Llama or Qwen layer, gated MLP included,
    2 * hidden * head_size * (heads + key_heads) + 3 * hidden * inner.

    Args:
        hidden, inner: widths of the model and of its MLP.
        heads, key_heads, head_size: of its attention.
        dense: see `Cost`.
    """
    weights = 2 * hidden * head_size * (heads + key_heads) + 3 * hidden * inner
    pair = 4 * heads * head_size / (2 * weights)
    if dense:  # rows have it too
        return Cost(DENSE_SLOWDOWN * pair, DENSE_BATCH, dense=True)
    return Cost(SPARSE_SLOWDOWN * pair, SPARSE_BATCH, dense=False, row_pair=FLASH_SLOWDOWN * pair)


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
    nodes, ancestors = _Intervals(lengths, shared), _Intervals.of_ancestors(lengths, shared)
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

    @classmethod
    def of_ancestors(cls, lengths: np.ndarray, shared: np.ndarray) -> _Intervals:
        """(node, ancestor) pairs: a node at depth d has d + 1 ancestors, itself among them."""
        return cls(lengths * (lengths + 1) // 2, shared * (shared + 1) // 2)

    def up_to(self, stop: int) -> np.ndarray:
        """Of the intervals start..stop-1, for each start below `stop`; shape (stop,)."""
        return self.whole[:stop] + self.fresh[stop] - self.fresh[1 : stop + 1]

    def of(self, start: int, stop: int) -> int:
        """Of one interval."""
        return int(self.whole[start] + self.fresh[stop] - self.fresh[start + 1])


def keep_groups(rows: Sequence[np.ndarray], groups: Sequence[Sequence[int]], cost: Cost) -> Grouping:
    """What given micro-batches cost, where it is not ours to choose which rows go together.

    Args:
        rows: token ids, one array a row.
        groups: row numbers of each micro-batch.
        cost: what to count.
    """
    parts = [sort_rows([rows[i] for i in group]) for group in groups]
    sizes = np.array([part.distinct_tokens for part in parts])
    pairs = np.array([_Intervals.of_ancestors(part.lengths, part.shared).of(0, len(part.lengths)) for part in parts])
    return Grouping(
        groups=tuple(map(tuple, groups)),
        tokens=sum(map(len, rows)),
        nodes=int(sizes.sum()),
        distinct=sort_rows(rows).distinct_tokens,
        cost=float(cost.of_trie(sizes, pairs).sum()),
        rows_cost=sum(cost.of_rows(part.lengths, part.tokens) for part in parts),
    )


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
