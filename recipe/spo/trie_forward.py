"""A causal language model on a trie of rows: inputs, attention masks, and log-probs back in the rows' layout.

The model runs once on the trie's N nodes as on one sequence, with position ids = depth and the mask of
`recipe.spo.packing` (ancestors only), and its head only at the P nodes whose distribution somebody asks for:

    logits   = head(hidden[keep])                                (P, vocabulary)
    logp(m)  = logits[source(m), target(m)] / T - logsumexp(logits[source(m)] / T)
    row(t)   = logp(value(t)) where a row asks for its token t, 0 elsewhere

so that a token which many rows share is computed once, and its gradient is the sum over them.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recipe.spo.packing import Trie, predictions
from recipe.spo.sharing import SharingError

#: Rows of logits that are worked on at a time, so that what is kept in float32 beside them stays small.
CHUNK = 512
#: Block size of FlexAttention; lengths that are a multiple of it avoid a compilation for each length.
BLOCK = 128
#: Most compilations of a function for FlexAttention: a few for shapes and modes; more would be one for each length.
COMPILATIONS = 32


@dataclass(frozen=True, slots=True)
class TrieInputs:
    """What the model gets for a trie, and how its outputs return. N nodes, with padding to whole blocks if asked for.

    Attributes:
        input_ids: shape (1, N).
        position_ids: shape (1, N).
        mask: ancestors only: bool of shape (1, 1, N, N), or FlexAttention's block mask.
        keep, source, targets, places, values: see `recipe.spo.packing.Predictions`.
        tokens: T, of all rows.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: Any
    keep: torch.Tensor
    source: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor
    values: torch.Tensor
    tokens: int

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments of a Hugging Face causal language model."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": self.mask,
            "logits_to_keep": self.keep,
        }


def trie_inputs(trie: Trie, asked: np.ndarray, device: torch.device | str, sparse: bool = False) -> TrieInputs:
    """Lay a trie out for the model.

    Args:
        trie: of the rows.
        asked: shape (T,), true for each token of the rows whose log-prob is wanted.
        device: where the model is.
        sparse: a FlexAttention block mask instead of a dense one, and N padded to whole blocks.
    """
    spare = -len(trie) % BLOCK if sparse else 0
    nodes = np.arange(len(trie), len(trie) + spare)
    # A padding node is a tree of its own, which nobody asks about.
    padded = [
        np.concatenate([trie.token_ids, np.zeros_like(nodes)]),
        np.concatenate([trie.positions, np.zeros_like(nodes)]),
        np.concatenate([trie.subtree_end, nodes + 1]),
    ]
    input_ids, position_ids, end = (torch.from_numpy(array).to(device) for array in padded)
    wanted = predictions(trie, asked)
    arrays = (wanted.keep, wanted.source, wanted.targets, wanted.places, wanted.values)
    return TrieInputs(
        input_ids[None],
        position_ids[None],
        ancestor_block_mask(end) if sparse else ancestor_mask(end),
        *(torch.from_numpy(array).to(device) for array in arrays),
        tokens=len(trie.nodes),
    )


def row_inputs(token_ids: np.ndarray, offsets: np.ndarray, asked: np.ndarray, device: torch.device | str) -> TrieInputs:
    """The same for rows that are packed one after the other and share nothing: positions start anew with each row.

    There is no mask: a model without one tells packed rows apart by their positions.

    Args:
        token_ids: shape (T,), of all rows.
        offsets: shape (R + 1,), where each row begins.
        asked: shape (T,), true for each token whose log-prob is wanted; never a row's first.
        device: where the model is.
    """
    tokens, place = np.flatnonzero(asked), np.arange(len(token_ids))
    positions = place - np.repeat(offsets[:-1], np.diff(offsets))
    each = np.arange(len(tokens))
    arrays = (token_ids, positions, tokens - 1, each, token_ids[tokens], tokens - 1, each)
    input_ids, position_ids, *rest = (torch.from_numpy(array).to(device) for array in arrays)
    return TrieInputs(input_ids[None], position_ids[None], None, *rest, tokens=len(token_ids))


def ancestor_mask(subtree_end: torch.Tensor) -> torch.Tensor:
    """True where query q may see key k, k <= q < subtree_end(k); shape (1, 1, N, N).

    Args:
        subtree_end: shape (N,).
    """
    place = torch.arange(len(subtree_end), device=subtree_end.device)
    return ((place <= place[:, None]) & (place[:, None] < subtree_end))[None, None]


def ancestor_block_mask(subtree_end: torch.Tensor) -> Any:
    """The same mask for FlexAttention, which skips blocks that are all false."""

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < subtree_end[key])

    nodes, device = len(subtree_end), subtree_end.device
    with no_silent_fallback():
        return _block_mask_function(compiled=device.type == "cuda")(sees, None, None, nodes, nodes, device=device)


@functools.cache
def _block_mask_function(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import create_block_mask

    # Compiled, it never holds all N^2 entries.
    return torch.compile(create_block_mask) if compiled else create_block_mask


def no_silent_fallback() -> contextlib.AbstractContextManager[None]:
    """Within it, torch raises where it would give up compiling and compute all N^2 pairs without a word."""
    return torch._dynamo.config.patch(recompile_limit=COMPILATIONS, fail_on_recompile_limit_hit=True)


def row_outputs(
    logits: torch.Tensor, inputs: TrieInputs, temperature: float = 1.0, entropy: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probs, and entropies of the distributions they come from, in the rows' flat layout.

    Args:
        logits: shape (P, vocabulary), of the nodes `inputs.keep`.
        inputs: what the model was given.
        temperature: T, by which logits are divided.
        entropy: whether to compute entropies.

    Returns:
        Two tensors of shape (T,) in float32, at each asked token's predictor, one place before the token;
        0 elsewhere. The second one is None if not asked for.

    Raises:
        SharingError: the model gave other logits than it was asked for.
    """
    if len(logits) != len(inputs.keep):
        raise SharingError(
            f"algorithm.spo.share_prefixes: the model gave logits of {len(logits)} tokens where {len(inputs.keep)} "
            "were asked for, so it does not heed logits_to_keep. Set algorithm.spo.share_prefixes=off"
        )
    log_probs, entropies = _HeadOutputs.apply(logits, inputs.source, inputs.targets, 1.0 / temperature, entropy)

    def to_rows(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(inputs.tokens).index_put((inputs.places,), values[inputs.values])

    return to_rows(log_probs), to_rows(entropies[inputs.source]) if entropy else None


class _HeadOutputs(torch.autograd.Function):
    """(logits (P, V), source (M,), targets (M,), 1/T) -> log-probs (M,) and entropies (P,), both in float32.

    With x = logits / T, p = softmax(x) and H the entropy, the gradient of logits is
    (onehot(target) - p) / T for a log-prob and -p (log p + H) / T for an entropy; written by hand because
    autograd would keep several more tensors of the size of the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Any, source: Any, targets: Any, scale: float, entropy: bool) -> Any:
        norm = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        entropies = torch.zeros_like(norm)
        for start in range(0, len(logits), CHUNK):
            part = slice(start, start + CHUNK)
            x = logits[part].float() * scale
            norm[part] = torch.logsumexp(x, dim=-1)
            if entropy:
                entropies[part] = norm[part] - (torch.softmax(x, dim=-1) * x).sum(dim=-1)
        ctx.save_for_backward(logits, source, targets, norm, entropies)
        ctx.scale, ctx.entropy = scale, entropy
        return logits[source, targets].float() * scale - norm[source], entropies

    @staticmethod
    def backward(ctx: Any, log_prob_grad: Any, entropy_grad: Any) -> Any:
        logits, source, targets, norm, entropies = ctx.saved_tensors
        each = torch.zeros_like(norm).index_add_(0, source, log_prob_grad)
        grad = torch.empty_like(logits)
        for start in range(0, len(logits), CHUNK):
            part = slice(start, start + CHUNK)
            log_p = logits[part].float().mul_(ctx.scale) if logits.dtype != torch.float32 else logits[part] * ctx.scale
            log_p -= norm[part, None]
            p = log_p.exp()
            weight = -each[part, None]
            if ctx.entropy:
                weight = weight - entropy_grad[part, None] * (log_p + entropies[part, None])
            grad[part] = p.mul_(weight).mul_(ctx.scale)
        # No pair of source and target stands twice, so this adds to what is there once.
        grad[source, targets] += (log_prob_grad * ctx.scale).to(grad.dtype)
        return grad, None, None, None, None
