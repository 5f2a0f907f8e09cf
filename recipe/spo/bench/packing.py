"""Many samples in one sequence: every token once, after whatever context it was sampled in.

A token's log-probability depends on the tokens before it alone. So samples are laid into a trie of tokens under the
prompt, and the policy reads the trie as one sequence in which a token sees its ancestors, at its own depth. Shared
contexts are computed once: a tree 4-4-4 costs about a sixth of its segments one by one. Where two samples hold the same
token in the same context, their weights add up.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from recipe.spo.advantage import Sample


@dataclass(slots=True)
class Trie:
    """Tokens in an order in which parents come before their children; the first one is the prompt's first.

    Attributes:
        token_ids: of each place.
        parents: place of the token before it, -1 for the first.
        depths: tokens before it.
        members: samples in the trie.
        places: for each of them, where its tokens are.
    """

    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.token_ids)

    def add(self, place: int, token_ids: Sequence[int]) -> list[int]:
        """Places of some tokens after a place (-1: at the beginning), new ones where they are not there yet."""
        found = []
        for token in token_ids:
            key = (place, token)
            if key not in self._children:
                self._children[key] = len(self.token_ids)
                self.parents.append(place)
                self.depths.append(self.depths[place] + 1 if place >= 0 else 0)
                self.token_ids.append(token)
            place = self._children[key]
            found.append(place)
        return found

    def sees(self) -> np.ndarray:
        """Whether the token at a place (row) sees another one (column): itself and its ancestors."""
        found = np.eye(len(self), dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                found[place] |= found[parent]
        return found

    def weights(self, columns: Sequence[Sequence[float]]) -> np.ndarray:
        """A weight a place, from weights of all samples' tokens."""
        found = np.zeros(len(self))
        for member, places in zip(self.members, self.places, strict=True):
            np.add.at(found, places, columns[member])
        return found


def pack(prompt_ids: Sequence[int], samples: Sequence[Sample], wanted: Sequence[int], most: int) -> Iterator[Trie]:
    """Lay samples into tries of at most so many tokens, or of one sample.

    Args:
        prompt_ids: the prompt.
        samples: with their contexts.
        wanted: which of them.
        most: tokens of a trie.
    """
    trie = Trie()
    for member in wanted:
        sample = samples[member]
        rest = (*sample.prefix_ids, *sample.token_ids)
        if trie.members and len(trie) + len(rest) > most:
            yield trie
            trie = Trie()
        end = trie.add(-1, prompt_ids)[-1]
        places = trie.add(end, rest)
        trie.members.append(member)
        trie.places.append(places[len(sample.prefix_ids) :])
    if trie.members:
        yield trie
