"""What the gradient view needs of this machine, told before anything is sampled."""

from __future__ import annotations

import sys

from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.models import Model

#: A parameter's bytes: weight and gradient in float32, its bucket in 4 bytes, its sign in one.
BYTES = 4 + 4 + 4 + 1
_SIZES = {"float32": 4, "float64": 8}
#: Parameters from which on the time is worth a word.
LARGE = 100_000_000


def parameters(model: Model) -> int:
    """Parameters of a model, roughly: the bytes of its weights over those of one, in the dtype that it names."""
    found: list[int] = []
    for pattern in ("*.safetensors", "*.bin"):
        found = found or [file.stat().st_size for file in model.folder.glob(pattern)]
    return sum(found) // _SIZES.get(model.dtype, 2)


def check_gradient(model: Model, methods: int) -> None:
    """See that the gradient view of a model fits, and say so where it takes long.

    Args:
        model: the policy.
        methods: whose gradients are measured.

    Raises:
        EvaluationError: it needs more memory than is free.
    """
    import psutil

    number = parameters(model)
    needed, free = number * BYTES, psutil.virtual_memory().available
    task = (
        f"the gradient view computes in float32 on the CPU, with at least {needed / 1e9:.1f} GB of memory for the "
        f"{number / 1e9:.2f} billion parameters of {model.name}"
    )
    if needed > free:
        raise EvaluationError(f"{task}, and {free / 1e9:.1f} GB are free; leave it out with --no-gradient")
    if number >= LARGE:
        passes = 2 * (methods + 1)
        print(f"{task} and {passes} backward passes or more a question; --no-gradient leaves it out", file=sys.stderr)
