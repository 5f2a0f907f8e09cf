"""Replay: which rows train now, which wait for a later step, which are given up (paper, appendix D).

A tree gives more rows than a step should train on one question. Those left over wait, for a bounded
number of steps, and train later with the log-probabilities of the policy that sampled them.

Departures from the authors' code: rows are chosen *before* they leave the buffer (theirs takes up to
32 rows a question out of it and then throws away what exceeds the budget of the step, up to 94 %);
a step with fewer rows than the budget trains those there are (theirs repeats rows to fill up); the
choice follows from (seed, step) and from what the rows are, not from global random state, so that a
resumed run chooses as if it had not stopped.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from recipe.spo.settings import ReplaySettings


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A row that could train. Rows are ordered by what they are, not by their (random) key.

    Attributes:
        born: step in which it was sampled.
        question: identity of its question.
        path: identity within its rollout.
        content: digest of its tokens, for questions that are drawn twice in a step.
        key: where the row is kept.
    """

    born: int
    question: str
    path: str
    content: str
    key: str = field(compare=False)


@dataclass(slots=True)
class Choice:
    """What becomes of the candidates; every one of them stands in exactly one list.

    Attributes:
        taken: train in this step.
        kept: wait for a later one.
        expired: given up; they would be too old for the next step, or are too old already.
    """

    taken: list[Candidate] = field(default_factory=list)
    kept: list[Candidate] = field(default_factory=list)
    expired: list[Candidate] = field(default_factory=list)


def choose_rows(candidates: Iterable[Candidate], step: int, settings: ReplaySettings, seed: int) -> Choice:
    """Choose the rows of a step: at most r rows a question, then at most the budget, both uniformly.

    Args:
        candidates: all rows there are, new ones and left-over ones, in any order.
        step: the current step.
        settings: budget, limit a question, and how many steps a row may wait.
        seed: of the run.

    Returns:
        The choice, each list ordered by `Candidate`'s order; it depends on (candidates, step,
        settings, seed) alone.
    """
    chosen, rng = Choice(), random.Random(f"{seed}/{step}")
    eligible: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates):
        if step - candidate.born > settings.max_age:
            chosen.expired.append(candidate)
        else:
            eligible.setdefault(candidate.question, []).append(candidate)
    pool: list[Candidate] = []
    for question in sorted(eligible):
        pool += _at_most(settings.rows_per_question, eligible[question], rng)
    chosen.taken = sorted(_at_most(settings.rows_per_step, pool, rng))
    taken = {candidate.key for candidate in chosen.taken}
    for candidate in sorted(c for group in eligible.values() for c in group):
        if candidate.key in taken:
            continue
        waits = step + 1 - candidate.born <= settings.max_age
        (chosen.kept if waits else chosen.expired).append(candidate)
    return chosen


def age_counts(candidates: Iterable[Candidate], step: int) -> dict[int, int]:
    """How many rows there are of each age, in steps."""
    counts: dict[int, int] = {}
    for candidate in candidates:
        counts[step - candidate.born] = counts.get(step - candidate.born, 0) + 1
    return counts


def _at_most(limit: int | None, items: list[Candidate], rng: random.Random) -> list[Candidate]:
    return items if limit is None or len(items) <= limit else rng.sample(items, limit)
