"""verl's batches as the packing of rows sees them: which rows, which of their tokens, which go together.

For: verl's engine, which cuts a batch into micro-batches by a function of its module that knows row lengths only.
Needless when: verl's engines have a method for it that can be overridden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import verl.workers.engine.fsdp.transformer_impl as fsdp_engine
from tensordict import TensorDict

Cut = Callable[..., tuple[list[TensorDict], list[list[int]] | None]]


@contextlib.contextmanager
def micro_batches_by(cut: Callable[[Cut], Cut]) -> Iterator[None]:
    """Cut batches of verl's FSDP engine in another way for the length of one call.

    Args:
        cut: given verl's own function, the one to use in its place.
    """
    verls = fsdp_engine.prepare_micro_batches
    fsdp_engine.prepare_micro_batches = cut(verls)
    try:
        yield
    finally:
        fsdp_engine.prepare_micro_batches = verls


def row_ids(batch: TensorDict) -> list[np.ndarray]:
    """Token ids of each row, prompt and response.

    Raises:
        ValueError: positions are not 0, 1, 2, ... in every row, so that they could not be the depth in a trie.
    """
    ids, offsets = _flat(batch["input_ids"]), row_offsets(batch)
    positions = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))
    given = batch["position_ids"]
    if given.dim() != 2 or not np.array_equal(_flat(given), positions):
        raise ValueError(
            "algorithm.spo.share_prefixes needs rows whose positions are 0, 1, 2, ...: set it to off for this model"
        )
    return np.split(ids, offsets[1:-1])


def row_offsets(batch: TensorDict) -> np.ndarray:
    """Where each row begins in the flat layout, and its end; shape (rows + 1,)."""
    return batch["input_ids"].offsets().cpu().numpy().astype(np.int64)


def asked_tokens(batch: TensorDict, trained_only: bool) -> np.ndarray:
    """Which tokens' log-probs are wanted, shape (tokens of all rows,).

    Args:
        batch: of verl.
        trained_only: those that the loss takes, by `response_mask`; otherwise all of the responses.

    Returns:
        True for these; at least one, so that no kernel has to compute a head of no tokens in a micro-batch without any.
    """
    ends, lengths = row_offsets(batch)[1:], batch["responses"].offsets().diff().cpu().numpy()
    starts = ends - lengths
    # Responses one after the other, each at the end of its row.
    places = np.arange(lengths.sum()) + np.repeat(starts - np.concatenate([[0], lengths.cumsum()[:-1]]), lengths)
    asked = np.zeros(ends[-1], dtype=bool)
    asked[places] = _flat(batch["response_mask"]).astype(bool) if trained_only else True
    if not asked.any():
        asked[ends[0] - 1] = True
    return asked


def _flat(nested: torch.Tensor) -> np.ndarray:
    return nested.values().cpu().numpy()
