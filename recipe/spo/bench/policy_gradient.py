"""Gradients of a Hugging Face policy in float32, through a random projection.

Each of the P parameters is added, with a random sign, to one of D buckets (a count sketch). The projection S is linear
and E (S g . S h) = g . h with a variance of at most 2 |g|^2 |h|^2 / D, so products of gradients keep their
value and the mean of projected gradients is the projected mean. S is fixed by its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from recipe.spo.advantage import Sample
from recipe.spo.bench.packing import Trie, pack

DIMENSION = 16_384
#: Tokens of a forward pass.
BATCH_TOKENS = 1024


class PolicyGradient:
    """A policy to differentiate; see `recipe.spo.bench.problem.GradientModel`.

    Args:
        folder: Hugging Face folder of a model with full attention.
        temperature: by which logits are divided, as in sampling.
        dimension: D.
        seed: of the projection.
    """

    def __init__(self, folder: Path, temperature: float, dimension: int = DIMENSION, seed: int = 0) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self._model.train(False)
        self._temperature, self._dimension = temperature, dimension
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        random = torch.Generator().manual_seed(seed)
        # 4 bytes a bucket: with the weights, a gradient and the signs that makes `BYTES` a parameter
        self._buckets = [
            torch.randint(dimension, (p.numel(),), generator=random).to(torch.int32) for p in self._parameters
        ]
        self._signs = [
            torch.randint(2, (p.numel(),), generator=random, dtype=torch.int8) * 2 - 1 for p in self._parameters
        ]

    def gradients(
        self, prompt_ids: Sequence[int], samples: Sequence[Sample], weights: Sequence[Sequence[Sequence[float]]]
    ) -> np.ndarray:
        """Projected gradients, see `GradientModel.gradients`; samples without any weight are not computed."""
        found = torch.zeros(len(weights), self._dimension)
        used = [i for i in range(len(samples)) if any(any(column[i]) for column in weights)]
        for trie in pack(prompt_ids, samples, used, BATCH_TOKENS):
            log_probs = self.log_probs(trie)
            losses = []
            for number, column in enumerate(weights):
                weight = torch.tensor(trie.weights(column)[1:], dtype=torch.float32)
                if weight.any():
                    losses.append((number, (weight * log_probs).sum()))
            for place, (number, loss) in enumerate(losses):
                parts = torch.autograd.grad(loss, self._parameters, retain_graph=place + 1 < len(losses))
                for part, buckets, signs in zip(parts, self._buckets, self._signs, strict=True):
                    found[number].index_add_(0, buckets, part.flatten() * signs)
        return found.numpy().astype(np.float64)

    def log_probs(self, trie: Trie) -> torch.Tensor:
        """Log-probability of every token of a trie but the first, given the tokens before it."""
        ids = torch.tensor(trie.token_ids)
        hidden = torch.zeros(len(trie), len(trie)).masked_fill(~torch.from_numpy(trie.sees()), torch.finfo().min)
        logits = self._model(
            input_ids=ids[None],
            attention_mask=hidden[None, None],
            position_ids=torch.tensor(trie.depths)[None],
            use_cache=False,
        ).logits[0]
        scaled = torch.log_softmax(logits.float() / self._temperature, dim=-1)
        return scaled[torch.tensor(trie.parents[1:]), ids[1:]]
