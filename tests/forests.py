"""Rows that share prefixes, and what a trie of them must be, by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


@st.composite
def forests(draw, vocabulary: int = 5, longest: int = 9, rows: int = 7, shortest: int = 1) -> list[np.ndarray]:
    """Rows of which some begin as another does, end where another goes on, or are the same.

    A small vocabulary makes prefixes meet by chance too; first tokens differ, so that there are several prompts.
    """
    tokens = st.integers(0, vocabulary - 1)
    made = [draw(st.lists(tokens, min_size=shortest, max_size=longest))]
    for _ in range(draw(st.integers(0, rows - 1))):
        parent = draw(st.sampled_from(made))
        kept = parent[: draw(st.integers(0, len(parent)))]
        room = st.lists(tokens, min_size=max(0, shortest - len(kept)), max_size=max(0, longest - len(kept)))
        made.append(kept + draw(room) or [0] * shortest)
    return [np.array(row) for row in draw(st.permutations(made))]


def prefixes(rows: list[np.ndarray]) -> set[tuple[int, ...]]:
    """Every distinct prefix: the nodes that a trie must have."""
    return {tuple(row[: i + 1].tolist()) for row in rows for i in range(len(row))}


def tree_rows(
    rng: np.random.Generator, prompt: int, factors: list[int], segment: int, last: int, vocabulary: int
) -> list[np.ndarray]:
    """A row for each segment of a full tree: prompt, path and segment."""
    rows, states = [], [rng.integers(0, vocabulary, prompt)]
    for depth, factor in enumerate(factors):
        length = last if depth == len(factors) - 1 else segment
        states = [np.append(state, rng.integers(0, vocabulary, length)) for state in states for _ in range(factor)]
        rows += states
    return rows
