"""`algorithm.spo.share_prefixes`: when prefixes are shared in training, whether both ways agree, what came of it.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from recipe.spo.grouping import WORTHWHILE

OFF, AUTO, ON = MODES = ("off", "auto", "on")

#: What the engine counts, as sums over micro-batches: tokens of rows, tokens that were computed for them, distinct ones
#: of an optimiser step, tokens of rows that were computed one by one; of updates, and of log-prob passes before them.
COUNTS = ("update_tokens", "update_computed", "update_distinct", "update_plain", "log_prob_tokens", "log_prob_computed")
#: Largest difference of log-probs that the check has found.
DIFFERENCE = "check_difference"
#: How the engine's counts are called in verl's metrics of an update.
PREFIX = "actor/spo_share_"

#: In float32 the same numbers are added up in another order, and that is all.
FLOAT32_TOLERANCE = 1e-3
#: In half precision each log-prob is off by some hundredths in either way, and a wrong mask moves the mean by tenths:
#: SmolLM2-135M in bfloat16, 0.017 (0.038 between bfloat16 and float32), with a causal mask in the place of ours 0.80.
HALF_TOLERANCE_OF_MEAN = 0.05
#: Of gradients, relative: rounding is some millionths in float32 and some hundredths in half precision, and a wrong
#: backward pass is off by about as much as there is.
FLOAT32_GRADIENT_TOLERANCE, HALF_GRADIENT_TOLERANCE = 0.01, 0.25

#: Of a model's configuration: its layers' shape, which the cost is estimated from.
SHAPE = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
#: What dropout inside the model is called in configurations of transformers.
DROPOUTS = (
    *("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "resid_pdrop", "resid_dropout"),
    *("embd_pdrop", "embd_dropout", "embedding_dropout", "hidden_dropout", "hidden_dropout_prob", "dropout"),
)


class SharingError(RuntimeError):
    """The two ways to compute a row do not agree, or a model that cannot share."""


def worthwhile(mode: str, cost: float, rows_cost: float) -> bool:
    """Whether to compute tries.

    Args:
        mode: `auto` or `on`.
        cost: of the tries, see `recipe.spo.grouping`.
        rows_cost: of the rows one by one.
    """
    return mode == ON or cost < WORTHWHILE * rows_cost


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """Largest and mean distance of log-probs of the same tokens; both tensors of shape (tokens,)."""
    distance = (ours.float() - theirs.float()).abs()
    return distance.max().item(), distance.mean().item()


def check_agreement(largest: float, mean: float, dtype: torch.dtype, tries: bool = True) -> None:
    """Refuse to go on if rows in our way and in verl's disagree.

    Args:
        largest, mean: `differences` of their log-probs at temperature 1, the greatest of all ranks.
        dtype: that the model computes in.
        tries: our way was their trie; otherwise they were packed one after the other, and shared nothing.

    Raises:
        SharingError: they disagree by more than rounding.
    """
    single = dtype == torch.float32
    # Not "greater than": a NaN is no agreement either.
    if not (largest <= FLOAT32_TOLERANCE if single else mean <= HALF_TOLERANCE_OF_MEAN):
        which, why = (
            ("rows that share their prefixes", "this model does not attend by the mask that it is given")
            if tries
            else ("packed rows that share nothing", "this model does not tell packed rows apart by their positions")
        )
        raise SharingError(
            f"algorithm.spo.share_prefixes: log-probs of {which} differ from those that verl computes of the same "
            f"rows, by {largest:.2g} at most and {mean:.2g} on average (computed in {dtype}): {why}. "
            "Set algorithm.spo.share_prefixes=off"
        )


def check_gradients(difference: float, dtype: torch.dtype) -> None:
    """Refuse to go on if gradients of rows in our way and in verl's disagree.

    Args:
        difference: norm of the gradients' difference over the norm of the rows' own.
        dtype: that the model computes in.

    Raises:
        SharingError: they disagree by more than rounding.
    """
    if not difference <= (FLOAT32_GRADIENT_TOLERANCE if dtype == torch.float32 else HALF_GRADIENT_TOLERANCE):
        raise SharingError(
            f"algorithm.spo.share_prefixes: gradients differ from those that verl computes of the same rows, by "
            f"{difference:.2g} of their norm (computed in {dtype}), although log-probs agree: a backward pass is "
            "wrong, attention's or the head's. Set algorithm.spo.share_prefixes=off"
        )


def check_model(config: Any, on_gpu: bool) -> None:
    """Refuse models whose rows cannot share a prefix.

    Args:
        config: of the model, Hugging Face's.
        on_gpu: whether FlexAttention takes the mask, or SDPA.

    Raises:
        SharingError: it has other layers than full attention, dropout, an attention that takes no mask, or a
            configuration that does not say how large its layers are.
    """
    layers = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    attention = config._attn_implementation
    dropouts = {name: getattr(config, name) for name in DROPOUTS if getattr(config, name, None)}
    missing = [name for name in SHAPE if getattr(config, name, None) is None]
    what = None
    if layers or window:
        what = f"it has layers that do not see the whole context ({', '.join(sorted(layers)) or 'a sliding window'})"
    elif dropouts:
        named = ", ".join(f"{name}={value}" for name, value in dropouts.items())
        what = f"it has dropout ({named}), which rows that share would share too"
    elif missing:
        what = f"its configuration has no {', '.join(missing)}, as Llama's and Qwen's have, to estimate what pays"
    elif not on_gpu and attention != "sdpa":
        what = f"its attention is {attention!r}, and without a GPU only 'sdpa' takes the mask"
    if what:
        raise SharingError(f"algorithm.spo.share_prefixes does not work for this model: {what}. Set it to off")


class Tally:
    """What the log-prob passes of a process have computed since its last update."""

    def __init__(self) -> None:
        self.tokens = self.computed = 0
        self.difference = 0.0

    def add(self, tokens: int, computed: int) -> None:
        """Count a micro-batch."""
        self.tokens, self.computed = self.tokens + tokens, self.computed + computed

    def take(self) -> tuple[int, int]:
        """Tokens of rows, and tokens that were computed for them; starts anew."""
        taken, self.tokens, self.computed = (self.tokens, self.computed), 0, 0
        return taken


def sharing_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Take the engine's counts out of a step's metrics.

    Args:
        metrics: of a step; the counts are removed.

    Returns:
        What docs/metrics.md lists under `spo/shared_prefixes/`; empty without sharing.
    """
    found = {name: metrics.pop(PREFIX + name) for name in (*COUNTS, DIFFERENCE) if PREFIX + name in metrics}
    if not found:
        return {}
    return {
        "spo/shared_prefixes/update_ratio": _ratio(found, "update_tokens", "update_computed"),
        "spo/shared_prefixes/possible_ratio": _ratio(found, "update_tokens", "update_distinct"),
        "spo/shared_prefixes/log_prob_ratio": _ratio(found, "log_prob_tokens", "log_prob_computed"),
        "spo/shared_prefixes/fallback_share": _ratio(found, "update_plain", "update_tokens"),
        "spo/shared_prefixes/check_difference": float(found[DIFFERENCE]),
    }


def _ratio(found: Mapping[str, float], over: str, under: str) -> float:
    # Nothing was computed: nothing was computed twice.
    return float(found[over] / found[under]) if found[under] else 1.0
