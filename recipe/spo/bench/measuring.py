"""What is compared with the truth: the states, segments, tokens and sibling choices of a question's references.

States. Every sampled state of a reference counts once; a method's value there is that of the last state that it
values, at or before it. *Own* states are those that it values itself. Bias by position is of own states, by
tokens before the state: that the response got so far is known there, so an unbiased estimate has no bias in any bin.

Advantages. Of segments: the method's A against V(end) - V(begin) of that segment. Of tokens: A on each
token that the probability mask lets train, against V(after the token) - V(before it).

Siblings. Two references of a question, cut after the same number of tokens, are two choices at the prompt. They are
compared where their true values differ by more than `CLEAR` standard errors, and one of them goes on: of two that
have ended every method knows the rewards. A method ranks them by the value that it has at the end of the segment that
holds the last token: V(after) of its credit.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from recipe.spo.bench.accuracy import moments
from recipe.spo.bench.credited import CreditedSegments
from recipe.spo.bench.intervals import Floats
from recipe.spo.bench.truth import Reference
from recipe.spo.rows import probability_mask

#: Standard errors between the true values of two siblings that are compared.
CLEAR = 3.0
#: Siblings are compared after every so many tokens.
SIBLING_STEP = 4
#: Tokens of a bin of positions.
BIN = 10


def value_at(found: CreditedSegments, state: int) -> float | None:
    """The method's value of a state; of the first segment's for a state before it; None without segments."""
    if not found:
        return None
    return next((part.before for part in reversed(found) if part.begin <= state), found[0].before)


def state_sums(references: Sequence[Reference], credited: Sequence[CreditedSegments]) -> tuple[Floats, Floats, int]:
    """Sums over all sampled states; (sum of V (1 - V), sum of squared error); and states without a value."""
    x, truth, noise, spread, missing = [], [], [], [], 0
    for reference, found in zip(references, credited, strict=True):
        for state, value, error in zip(reference.sampled, reference.values, reference.errors, strict=True):
            estimate = value_at(found, state)
            if estimate is None:
                missing += 1
                continue
            x.append(estimate)
            truth.append(value)
            noise.append(error)
            spread.append(error * reference.continuations)
    sums = moments(x, truth, noise)
    return sums, np.array([sum(spread), sums[6]]), missing


def own_sums(
    references: Sequence[Reference], credited: Sequence[CreditedSegments], bins: int
) -> tuple[Floats, Floats, Floats]:
    """Sums over own states; the same for each bin of positions; (sum of V (1 - V), sum of squared error)."""
    x: list[list[float]] = [[] for _ in range(bins)]
    truth: list[list[float]] = [[] for _ in range(bins)]
    noise: list[list[float]] = [[] for _ in range(bins)]
    spread = 0.0
    for reference, found in zip(references, credited, strict=True):
        for part in found:
            if part.before is None:
                continue
            value, error = reference.value(part.begin)
            place = min(part.begin // BIN, bins - 1)
            x[place].append(part.before)
            truth[place].append(value)
            noise[place].append(error)
            spread += reference.variance(part.begin)
    by_bin = np.array([moments(*columns) for columns in zip(x, truth, noise, strict=True)])
    sums = by_bin.sum(axis=0)
    return sums, by_bin, np.array([spread, sums[6]])


def segment_sums(references: Sequence[Reference], credited: Sequence[CreditedSegments]) -> Floats:
    """Sums over segments, of advantages."""
    x, truth, noise = [], [], []
    for reference, found in zip(references, credited, strict=True):
        for part in found:
            value, error = reference.advantage(part.begin, part.end)
            x.append(part.advantage)
            truth.append(value)
            noise.append(error)
    return moments(x, truth, noise)


def token_sums(references: Sequence[Reference], credited: Sequence[CreditedSegments], mask_threshold: float) -> Floats:
    """Sums over the tokens that the probability mask lets train, of advantages."""
    x, truth, noise = [], [], []
    for reference, found in zip(references, credited, strict=True):
        advantages = np.zeros(reference.tokens)
        for part in found:
            advantages[part.begin : part.end] = part.advantage
        for token, trained in enumerate(probability_mask(reference.node.log_probs, mask_threshold)):
            if trained:
                value, error = reference.advantage(token, token + 1)
                x.append(float(advantages[token]))
                truth.append(value)
                noise.append(error)
    return moments(x, truth, noise)


def sibling_sums(references: Sequence[Reference], credited: Sequence[CreditedSegments]) -> Floats:
    """(pairs in the right order, a tie counting 1/2; pairs that are compared)."""
    right, pairs = 0.0, 0
    for (one, found), (other, others) in combinations(zip(references, credited, strict=True), 2):
        for state in range(SIBLING_STEP, max(one.tokens, other.tokens), SIBLING_STEP):
            (first, noise), (second, more) = (part.value(min(state, part.tokens)) for part in (one, other))
            if abs(first - second) <= CLEAR * math.sqrt(noise + more):
                continue
            pairs += 1
            values = [_value_after(part, min(state, of.tokens)) for part, of in ((found, one), (others, other))]
            if None in values or values[0] == values[1]:
                right += 0.5
            else:
                right += (values[0] > values[1]) == (first > second)
    return np.array([right, pairs], dtype=np.float64)


def _value_after(found: CreditedSegments, state: int) -> float | None:
    """The method's value where the segment that holds the token before a state ends."""
    if not found:
        return None
    if state <= found[0].begin:
        return found[0].before
    return next((part.after for part in found if part.begin < state <= part.end), None)
