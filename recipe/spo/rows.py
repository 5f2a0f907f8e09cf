"""From segments to training rows: selection and the probability mask.

A row is (context ids, trained ids, per-token advantage, per-token mask). A segment of a tree is a
row whose context is the prompt and the path that leads to it; its tokens are trained in this row
and in no other, so a token shared by many leaves is trained once.

Probability mask (paper, eq. 8 and section 4.3): only tokens that the policy found improbable when it
sampled them, p(t) < rho, take part in the loss. Strict: a token with p exactly rho is left out.
The authors take p from the trainer's forward pass at the start of the iteration; here it is the
sampler's own probability, which is the same policy before any update of the iteration.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recipe.spo.advantage import Segment


@dataclass(slots=True, frozen=True)
class Row:
    """One training sample; the per-token sequences all have the length of `response_ids`.

    Attributes:
        path: which segment of the tree this is.
        prompt_ids: context, that is the prompt and the response tokens before the segment.
        response_ids: the tokens that this row may train.
        response_mask: 1 for a trained token, 0 for one that the probability mask leaves out.
        advantages: A of the segment on each trained token, 0 elsewhere.
        log_probs: log-probability of each token when it was sampled.
        score: value of the state after the segment (the reward, if the segment ends a response).
    """

    path: tuple[int, ...]
    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    advantages: list[float]
    log_probs: list[float]
    score: float


@dataclass(slots=True)
class Selection:
    """The rows that train, and the count of the segments that do not, by reason."""

    rows: list[Row]
    zero_advantage: int = 0
    all_masked: int = 0


def probability_mask(log_probs: Sequence[float], threshold: float | None) -> list[int]:
    """M(t) = 1 if p(t) < threshold else 0 (paper, section 4.3).

    Args:
        log_probs: natural-log probabilities of the sampled tokens.
        threshold: rho in (0, 1]; `None` switches the mask off (every token is trained).

    Returns:
        A list of 0/1 of the same length.
    """
    if threshold is None:
        return [1] * len(log_probs)
    return [int(math.exp(log_prob) < threshold) for log_prob in log_probs]


def select_rows(prompt_ids: Sequence[int], segments: Iterable[Segment], mask_threshold: float | None) -> Selection:
    """Turn segments into rows; leave out, and count, those that cannot move the policy.

    Args:
        prompt_ids: the prompt's token ids.
        segments: segments of one prompt's tree.
        mask_threshold: rho of the probability mask, or `None` for no mask.

    Returns:
        The rows in the order of the segments, with the counts of what was left out: segments whose
        advantage is zero, and segments of which the mask left no token.
    """
    selection = Selection(rows=[])
    for segment in segments:
        if segment.advantage == 0.0:
            selection.zero_advantage += 1
            continue
        mask = probability_mask(segment.log_probs, mask_threshold)
        if not any(mask):
            selection.all_masked += 1
            continue
        selection.rows.append(
            Row(
                path=segment.path,
                prompt_ids=[*prompt_ids, *segment.prefix_ids],
                response_ids=list(segment.token_ids),
                response_mask=mask,
                advantages=[segment.advantage * m for m in mask],
                log_probs=list(segment.log_probs),
                score=segment.value,
            )
        )
    return selection
