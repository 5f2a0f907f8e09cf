"""Which layers LoRA adapts, by PEFT's rules, told from a model's shape.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from recipe.spo.model_shape import ModelShape

ALL_LINEAR = "all-linear"


class LoraError(ValueError):
    """LoRA has nothing to adapt, or less than was asked for."""


def adapted_modules(shape: ModelShape, targets: str | Sequence[str]) -> list[str]:
    """Names of the linear layers that get an adapter.

    Only `torch.nn.Linear` counts: what vLLM has adapters for. GPT-2's Conv1D, which PEFT would
    adapt, is not among it.

    Args:
        shape: the model.
        targets: `actor_rollout_ref.model.target_modules`: `all-linear`, a regular expression that matches
            whole names, or a list of names or of their last parts.

    Raises:
        LoraError: nothing matches, or one entry of the list does not.
    """
    names = list(shape.linear_modules)
    if not names:
        raise LoraError(f"{shape.architecture} has no linear layers that LoRA can adapt")
    last_parts = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            return names
        chosen = [name for name in names if re.fullmatch(targets, name)]
        if not chosen:
            raise LoraError(f"no linear layer of {shape.architecture} matches {targets!r}; there are {last_parts}")
        return chosen
    for target in targets:
        if not any(_ends_with(name, target) for name in names):
            raise LoraError(f"{shape.architecture} has no linear layer {target!r}; there are {last_parts}")
    return [name for name in names if any(_ends_with(name, target) for target in targets)]


def adapter_parameters(shape: ModelShape, targets: str | Sequence[str], rank: int) -> int:
    """Trained parameters: rank x (inputs + outputs) of each adapted layer.

    Raises:
        LoraError: nothing to adapt.
    """
    return sum(rank * sum(shape.linear_modules[name]) for name in adapted_modules(shape, targets))


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
