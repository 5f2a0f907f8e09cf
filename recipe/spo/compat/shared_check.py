"""Some rows computed in our way and in verl's: by how much log-probs and gradients differ.

For: a model that does not attend by the mask that it is given, or does not heed which logits are asked for, would train
on wrong numbers without a word; and FlexAttention's backward pass is a kernel of its own.
Needless when: verl packs rows by shared prefixes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_name

from recipe.spo.compat.shared_rows import asked_tokens
from recipe.spo.sharing import check_agreement, check_gradients, differences

#: Of whose parameters gradients are compared, where a model has such: attention of all layers is behind them.
FIRST_LAYER = ".layers.0."


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What two ways to compute the same rows differ by, the greatest of all ranks.

    Attributes:
        largest, mean: of log-probs.
        gradient: norm of the difference of gradients over the norm of verl's; `None` if not compared.
    """

    largest: float
    mean: float
    gradient: float | None


def disagreement(
    step: Callable[[bool, Callable | None], Any], rows: TensorDict, module: torch.nn.Module, group: Any, gradients: bool
) -> Disagreement:
    """Compute rows in both ways; all ranks together.

    Args:
        step: verl's `forward_step`, given whether in our way, and a loss function or `None`.
        rows: that it computes.
        module: the model; its gradients are left as they were.
        group: of the data-parallel ranks.
        gradients: compare those too.
    """
    asked = torch.from_numpy(asked_tokens(rows, trained_only=False)[1:])
    # A gradient that somebody has begun to add up is none of ours.
    begun = [(parameter, parameter.grad) for parameter in module.parameters()]
    log_probs, grads = [], []

    def sum_of_asked(model_output: dict[str, torch.Tensor], **_: Any) -> tuple[torch.Tensor, dict]:
        values = model_output["log_probs"].values()[:-1]
        return values[asked.to(values.device)].sum(), {}

    for ours in (True, False):
        module.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(gradients):
            loss, output = step(ours, sum_of_asked if gradients else None)
        if gradients:
            loss.backward()
            grads.append(_first_layer(module))
        values = output["model_output"]["log_probs"].values()[:-1]
        log_probs.append(values[asked.to(values.device)].detach())
    for parameter, gradient in begun:
        parameter.grad = gradient
    largest = torch.tensor(differences(*log_probs), device=get_device_name())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    return Disagreement(*largest.tolist(), gradient=_distance(*grads, group) if gradients else None)


def report(found: Disagreement, dtype: torch.dtype, tries: bool, say: bool) -> None:
    """Go on if it is rounding.

    Args:
        found: by how much both ways differ.
        dtype: that the model computes in.
        tries: our way was a trie, not packed rows.
        say: print it.

    Raises:
        SharingError: it is more than rounding.
    """
    check_agreement(found.largest, found.mean, dtype, tries)
    if found.gradient is not None:
        check_gradients(found.gradient, dtype)
    if say:
        behind = "" if found.gradient is None else f", gradients by {found.gradient:.2g} of their norm"
        print(
            "algorithm.spo.share_prefixes: some rows were computed in both ways; "
            f"log-probs differ by at most {found.largest:.2g}{behind}",
            flush=True,
        )


def _first_layer(module: torch.nn.Module) -> list[torch.Tensor]:
    found = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    chosen = [grad for name, grad in found.items() if FIRST_LAYER in name] or list(found.values())
    return [grad.to_local() if isinstance(grad, DTensor) else grad for grad in chosen]


def _distance(ours: list[torch.Tensor], theirs: list[torch.Tensor], group: Any) -> float:
    squares = [
        sum((one.float() - other.float()).square().sum().item() for one, other in zip(ours, theirs, strict=True)),
        sum(other.float().square().sum().item() for other in theirs),
    ]
    summed = torch.tensor(squares, device=get_device_name())  # over the parameters' shards
    dist.all_reduce(summed, op=dist.ReduceOp.SUM, group=group)
    difference, size = summed.sqrt().tolist()
    return difference / size if size else difference
