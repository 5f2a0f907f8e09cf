"""The trie of training rows: every distinct prefix once.

The rows of a tree share their prompt and most of their path. What a causal model computes at a token depends on the
token and those before it in its row, that is on a prefix; rows that begin alike compute the same until they part. The
trie of the rows has one node for each distinct prefix, and

    rows              trie, depth first          node   token  position  parent  subtree end
    a b c             a ─ b ─ c                  0      a      0         -1      5
    a b d e               └ d ─ e                1      b      1         0       5
    a b                                          2      c      2         1       3
                                                 3      d      2         1       5
                                                 4      e      3         3       5

the model runs on its nodes in that order as on one sequence, with position = depth and with the attention mask

    q attends to k   <=>   k is q or an ancestor of q   <=>   k <= q < subtree_end(k)

which hides nothing that a row would see and shows nothing that it would not. Row r's token t is node `nodes[r][t]`, so
outputs are gathered back to the rows' own layout, and the gradient of a shared node is the sum over its rows, as
autograd has it. Nothing here knows of SPO: prompts, trees, groups of responses and duplicates share what they share.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class SortedRows:
    """R rows in lexicographic order, in which those that share a prefix stand together.

    Attributes:
        rows: the rows' token ids, sorted; a prefix comes before what it begins.
        order: shape (R,); `rows[i]` is the caller's row `order[i]`.
        lengths: shape (R,), tokens of each sorted row.
        shared: shape (R,), tokens that each one has in common with the row before it; 0 for the first.
    """

    rows: tuple[np.ndarray, ...]
    order: np.ndarray
    lengths: np.ndarray
    shared: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum())

    @property
    def distinct_tokens(self) -> int:
        """Nodes of the trie of all rows."""
        return int((self.lengths - self.shared).sum())


@dataclass(frozen=True, slots=True)
class Trie:
    """N nodes in depth-first order, and where the T tokens of R rows are among them. All arrays are int64.

    Attributes:
        token_ids: shape (N,).
        positions: shape (N,), the node's depth, which is its token's position in every row through it.
        parents: shape (N,), -1 for a first token.
        subtree_end: shape (N,); the descendants of node k are k + 1, ..., subtree_end[k] - 1.
        nodes: shape (T,), the node of each token, the rows in the caller's order one after the other.
        offsets: shape (R + 1,); row r's tokens are offsets[r], ..., offsets[r + 1] - 1.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    parents: np.ndarray
    subtree_end: np.ndarray
    nodes: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def ratio(self) -> float:
        """Tokens of the rows over distinct ones: how much less there is to compute; 1 if nothing is shared."""
        return len(self.nodes) / len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Which tokens' log-probs are asked for, and which nodes predict them.

    A node that is not a first token is one prediction: its token, given its parent. A parent with several children
    predicts several tokens with one distribution, and rows that share a token share its log-prob.

    Attributes:
        keep: shape (P,), the distinct nodes that predict, ascending: logits are needed here and nowhere else.
        source: shape (M,), places in `keep`: which of them predicts the m-th distinct token.
        targets: shape (M,), the ids of those tokens.
        places: shape (A,), places in the rows' flat layout of the asked tokens' predictors, one before the token.
        values: shape (A,), which of the M predictions stands at each of `places`.
    """

    keep: np.ndarray
    source: np.ndarray
    targets: np.ndarray
    places: np.ndarray
    values: np.ndarray


def sort_rows(rows: Sequence[np.ndarray]) -> SortedRows:
    """Put rows into lexicographic order and measure what neighbours share.

    Args:
        rows: token ids, one array a row, each of at least one token.

    Raises:
        ValueError: there is no row, or an empty one.
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("a trie needs rows of at least one token each")
    # Big-endian words compare as bytes as they do as numbers: one memcmp a comparison.
    keys = [np.ascontiguousarray(row).astype(">u4").tobytes() for row in rows]
    order = np.array(sorted(range(len(rows)), key=keys.__getitem__), dtype=np.int64)
    ordered = tuple(np.asarray(rows[i], dtype=np.int64) for i in order)
    shared = [0, *(common_prefix(one, other) for one, other in zip(ordered, ordered[1:], strict=False))]
    return SortedRows(ordered, order, np.array([len(row) for row in ordered]), np.array(shared))


def common_prefix(one: np.ndarray, other: np.ndarray) -> int:
    """Leading tokens that two rows have in common."""
    width = min(len(one), len(other))
    different = one[:width] != other[:width]
    first = int(different.argmax()) if width else 0
    return first if width and different[first] else width


def sample_that_shares(rows: Sequence[np.ndarray], limit: int) -> list[int]:
    """Neighbours in lexicographic order that share, none of them twice: enough to see whether sharing is right.

    Args:
        rows: token ids, one array a row.
        limit: most tokens of the sample, unless the two rows that share most have more.

    Returns:
        Row numbers, at least two where there are two different rows.
    """
    found = sort_rows(rows)
    new = np.flatnonzero(np.append(True, found.shared[1:] < found.lengths[1:]))
    if len(new) == 1:
        return [int(found.order[0])]
    start = int(found.shared[new[1:]].argmax())
    fit = int((found.lengths[new[start:]].cumsum() <= limit).sum())
    return found.order[new[start : start + max(2, fit)]].tolist()


def build_trie(rows: Sequence[np.ndarray]) -> Trie:
    """Lay rows out as a trie, in time proportional to their tokens.

    In lexicographic order a row adds the nodes behind what it shares with the row before it, and closes
    the subtrees that it leaves.

    Args:
        rows: token ids, one array a row, each of at least one token; duplicates and prefixes are fine.

    Raises:
        ValueError: there is no row, or an empty one.
    """
    found = sort_rows(rows)
    total = found.distinct_tokens
    token_ids, positions, parents = (np.empty(total, dtype=np.int64) for _ in range(3))
    subtree_end = np.full(total, total, dtype=np.int64)
    paths: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(rows)
    path, start = np.empty(0, dtype=np.int64), 0
    for row, caller, shared in zip(found.rows, found.order, found.shared, strict=True):
        stop = start + len(row) - shared
        subtree_end[path[shared:]] = start
        fresh = np.arange(start, stop)
        token_ids[start:stop], positions[start:stop] = row[shared:], np.arange(shared, len(row))
        parents[start:stop] = fresh - 1
        if stop > start:
            parents[start] = path[shared - 1] if shared else -1
        path, start = np.concatenate([path[:shared], fresh]), stop
        paths[caller] = path
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Trie(token_ids, positions, parents, subtree_end, np.concatenate(paths), offsets)


def predictions(trie: Trie, asked: np.ndarray) -> Predictions:
    """Where the model's head has to run for some of the rows' tokens, and how its results return to the rows.

    Args:
        trie: of the rows.
        asked: shape (T,), true for each token of the rows whose log-prob is wanted.

    Raises:
        ValueError: a row's first token is asked for; nothing predicts it.
    """
    tokens = np.flatnonzero(asked)
    nodes, values = np.unique(trie.nodes[tokens], return_inverse=True)
    if len(nodes) and trie.parents[nodes].min() < 0:
        raise ValueError("nothing predicts the first token of a row")
    keep, source = np.unique(trie.parents[nodes], return_inverse=True)
    return Predictions(keep, source, trie.token_ids[nodes], tokens - 1, values)
