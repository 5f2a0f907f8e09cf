"""From credit to the weights of log-probabilities, whose gradient is the policy gradient.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipe.spo.advantage import Sample
from recipe.spo.bench.problem import GradientModel
from recipe.spo.bench.truth import Reference
from recipe.spo.rows import probability_mask

#: The two gradients of a method: every token trains, or those below the mask's threshold.
MASKS = ("all tokens", "mask")


def true_samples(references: Sequence[Reference]) -> list[Sample]:
    """The references, every token with its ground-truth advantage."""
    return [
        Sample(
            path=(index,),
            prefix_ids=(),
            token_ids=tuple(reference.node.token_ids),
            log_probs=tuple(reference.node.log_probs),
            advantages=tuple(reference.advantage(token, token + 1)[0] for token in range(reference.tokens)),
            score=reference.node.reward,
        )
        for index, reference in enumerate(references)
    ]


def trained_tokens(samples: Sequence[Sample], mask_threshold: float) -> int:
    """Tokens below the threshold whose advantage is not 0."""
    return sum(
        bool(a) * m
        for sample in samples
        for a, m in zip(sample.advantages, probability_mask(sample.log_probs, mask_threshold), strict=True)
    )


def policy_gradients(
    model: GradientModel,
    prompt_ids: Sequence[int],
    credited: Sequence[tuple[str, Sequence[Sample]]],
    mask_threshold: float,
) -> np.ndarray:
    """The gradient that each method's samples make, with and without the mask.

    Args:
        model: the policy.
        prompt_ids: of the question.
        credited: for each method, the name of its rollout and its samples; methods of one rollout have the same
            tokens on the same path, so one forward pass serves them.
        mask_threshold: rho.

    Returns:
        Shape (methods, masks, dimension), float32.
    """
    found: np.ndarray | None = None
    for plan in dict.fromkeys(name for name, _ in credited):
        members = [(number, samples) for number, (name, samples) in enumerate(credited) if name == plan]
        table = {sample.path: sample for _, samples in members for sample in samples}
        weights = [
            _weights({sample.path: sample for sample in samples}, list(table.values()), threshold)
            for _, samples in members
            for threshold in (None, mask_threshold)
        ]
        part = model.gradients(prompt_ids, list(table.values()), weights)
        if found is None:
            found = np.zeros((len(credited), len(MASKS), part.shape[1]), dtype=np.float32)
        for (number, _), rows in zip(members, part.reshape(len(members), len(MASKS), -1), strict=True):
            found[number] = rows
    return found if found is not None else np.zeros((0, len(MASKS), 0), dtype=np.float32)


def _weights(
    own: dict[tuple[int, ...], Sample], samples: Sequence[Sample], mask_threshold: float | None
) -> list[list[float]]:
    columns = []
    for sample in samples:
        used = own.get(sample.path)
        if used is None:  # of a larger method of the same rollout
            columns.append([0.0] * len(sample.token_ids))
        else:
            mask = probability_mask(used.log_probs, mask_threshold)
            columns.append([a * m for a, m in zip(used.advantages, mask, strict=True)])
    return columns
