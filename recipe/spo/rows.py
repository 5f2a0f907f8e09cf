"""From samples to training rows: selection and the probability mask.

A row is (context ids, trained ids, per-token advantage, per-token mask). A segment of a tree is a
row whose context is the prompt and the path that leads to it; its tokens are trained in this row
and in no other, so a token shared by many leaves is trained once. A response of a chain is a row
with several segments, a response of a group one with a single segment.

Probability mask (paper, eq. 8 and section 4.3): only tokens that the policy found improbable when it
sampled them, p(t) < rho, take part in the loss. Strict: a token with p exactly rho is left out.
The authors take p from the trainer's forward pass at the start of the iteration; here it is the
sampler's own probability, which is the same policy before any update of the iteration
(`mask_source: trainer` masks in the trainer, by theirs).

Rows that cannot move the policy are left out by default; their tokens then do not count in the
loss's normaliser Z either. The paper leaves them out for trees (A != 0) and keeps them for chains.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recipe.spo.advantage import Sample


@dataclass(slots=True, frozen=True)
class Row:
    """One training sample; the per-token sequences all have the length of `response_ids`.

    Attributes:
        path: which segment of the tree this is, or which response.
        prompt_ids: context, that is the prompt and the response tokens before the segment.
        response_ids: the tokens that this row may train.
        response_mask: 1 for a trained token, 0 for one that the probability mask leaves out.
        advantages: A of its segment on each trained token, 0 elsewhere.
        log_probs: log-probability of each token when it was sampled.
        score: value of the state after the tokens (the reward, if the response ends there).
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
    """The rows that train, and the count of the samples that do not, by reason."""

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


def select_rows(
    prompt_ids: Sequence[int], samples: Iterable[Sample], mask_threshold: float | None, keep_all: bool = False
) -> Selection:
    """Turn samples into rows; leave out, and count, those that cannot move the policy.

    Args:
        prompt_ids: the prompt's token ids.
        samples: samples of one prompt.
        mask_threshold: rho of the probability mask, or `None` for no mask.
        keep_all: keep rows without signal too, so that their trained tokens count in the normaliser Z.

    Returns:
        The rows in the order of the samples, with the counts of what was left out: samples without
        an advantage on any token that the mask lets train, and samples of which the mask left no
        token at all.
    """
    selection = Selection(rows=[])
    for sample in samples:
        mask = probability_mask(sample.log_probs, mask_threshold)
        advantages = [a * m for a, m in zip(sample.advantages, mask, strict=True)]
        if not any(mask) and any(sample.advantages):
            selection.all_masked += 1
            continue
        if not any(mask) or not (any(advantages) or keep_all):
            selection.zero_advantage += 1
            continue
        selection.rows.append(
            Row(
                path=sample.path,
                prompt_ids=[*prompt_ids, *sample.prefix_ids],
                response_ids=list(sample.token_ids),
                response_mask=mask,
                advantages=advantages,
                log_probs=list(sample.log_probs),
                score=sample.score,
            )
        )
    return selection
