"""Gradients of a Hugging Face policy in float32, through a random projection.

Each of the P parameters is added, with a random sign, to one of D buckets (a count sketch). The projection S is linear
and E (S g . S h) = g . h with a variance of at most 2 |g|^2 |h|^2 / D, so products of gradients keep their
value and the mean of projected gradients is the projected mean. S is fixed by its seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipe.spo.advantage import Sample

DIMENSION = 16_384
#: Tokens of a forward pass, padding included.
BATCH_TOKENS = 4096


class PolicyGradient:
    """A policy to differentiate; see `recipe.spo.bench.problem.GradientModel`.

    Args:
        folder: Hugging Face folder.
        temperature: by which logits are divided, as in sampling.
        dimension: D.
        seed: of the projection.
    """

    def __init__(self, folder: Path, temperature: float, dimension: int = DIMENSION, seed: int = 0) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model.train(False)
        self._temperature, self._dimension, self._seed = temperature, dimension, seed
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        random = torch.Generator().manual_seed(seed)
        self._buckets = [torch.randint(dimension, (p.numel(),), generator=random) for p in self._parameters]
        self._signs = [
            torch.randint(2, (p.numel(),), generator=random, dtype=torch.int8) * 2 - 1 for p in self._parameters
        ]

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The projection; the policy is part of the bench's own fingerprint."""
        return {"dimension": self._dimension, "seed": self._seed, "torch": torch.__version__}

    def gradients(
        self, prompt_ids: Sequence[int], samples: Sequence[Sample], weights: Sequence[Sequence[Sequence[float]]]
    ) -> np.ndarray:
        """Projected gradients, see `GradientModel.gradients`; samples without any weight are not computed."""
        found = torch.zeros(len(weights), self._dimension)
        used = [i for i in range(len(samples)) if any(any(column[i]) for column in weights)]
        used.sort(key=lambda i: len(samples[i].prefix_ids) + len(samples[i].token_ids))
        for batch in self._batches(used, samples, len(prompt_ids)):
            log_probs = self._log_probs(prompt_ids, [samples[i] for i in batch])
            losses = []
            for number, column in enumerate(weights):
                weight = torch.tensor([value for i in batch for value in column[i]], dtype=torch.float32)
                if weight.any():
                    losses.append((number, (weight * log_probs).sum()))
            for place, (number, loss) in enumerate(losses):
                parts = torch.autograd.grad(loss, self._parameters, retain_graph=place + 1 < len(losses))
                for part, buckets, signs in zip(parts, self._buckets, self._signs, strict=True):
                    found[number].index_add_(0, buckets, part.flatten() * signs)
        return found.numpy().astype(np.float64)

    def _batches(self, used: Sequence[int], samples: Sequence[Sample], prompt: int) -> list[list[int]]:
        """Samples of like length together, at most `BATCH_TOKENS` (or one sample) each."""
        batches: list[list[int]] = []
        for i in used:
            longest = prompt + len(samples[i].prefix_ids) + len(samples[i].token_ids)
            if batches and (len(batches[-1]) + 1) * longest <= BATCH_TOKENS:
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    def _log_probs(self, prompt_ids: Sequence[int], batch: Sequence[Sample]) -> torch.Tensor:
        """Log-probabilities of all tokens of the samples, one sample after the other."""
        rows = [[*prompt_ids, *sample.prefix_ids, *sample.token_ids] for sample in batch]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        attends = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        logits = self._model(input_ids=ids[:, :-1], attention_mask=attends[:, :-1]).logits.float() / self._temperature
        of_tokens = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        parts = [
            of_tokens[place, len(row) - len(sample.token_ids) - 1 : len(row) - 1]
            for place, (row, sample) in enumerate(zip(rows, batch, strict=True))
        ]
        return torch.cat(parts)
