"""How much of the reward is still open after so many tokens, and so where a cut can tell something.

For a question, with s_t the state after t tokens of a response, V(s_t) its value and R the reward,

    Var R = E Var(R | s_t) + Var V(s_t)        (law of total variance)

The first part is what is still open, the second what the first t tokens have decided. It is also what a value at t in
place of the prompt's takes off the noise of later tokens' credit. Where the open share is near 1, a cut there has
the prompt's value but for noise, whatever it costs to measure.

Var(R | s_t) is the unbiased variance of the rewards of the state's continuations; of a response that has ended it is 0.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recipe.spo.bench import accuracy
from recipe.spo.bench.intervals import Floats, estimate
from recipe.spo.bench.truth import Reference


def open_sums(references: Sequence[Reference], positions: Sequence[int]) -> Floats:
    """Sums over a question's references at each position: how many, still going on, Var(R | s_t), Var(R | prompt).

    Returns:
        Shape (positions, 4).
    """
    found = np.zeros((len(positions), 4))
    for reference in references:
        at_prompt = reference.variance(0)
        for place, position in enumerate(positions):
            going = position < reference.tokens
            found[place] += (1, going, reference.variance(position) if going else 0.0, at_prompt)
    return found


def by_position(questions: Sequence[Sequence[Reference]], step: int, drawn: Floats) -> list[dict[str, Any]]:
    """What is still open after 0, step, 2 step ... tokens, with intervals.

    Args:
        questions: the references of each.
        step: tokens from one position to the next.
        drawn: see `intervals.draws`.
    """
    longest = max(reference.tokens for references in questions for reference in references)
    positions = range(0, longest, step)
    sums = np.array([open_sums(references, positions) for references in questions])
    return [
        {
            "after_tokens": position,
            "going_on": estimate(sums[:, place, [1, 0]], accuracy.ratio, drawn).as_json(),
            "open": estimate(sums[:, place, [2, 0]], accuracy.ratio, drawn).as_json(),
            "open_share": estimate(sums[:, place, [2, 3]], accuracy.ratio, drawn).as_json(),
        }
        for place, position in enumerate(positions)
    ]
