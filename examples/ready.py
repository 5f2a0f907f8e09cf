"""Is everything here that an experiment needs? Asked by the run_*.sh scripts before anything starts.

Prints the overrides that this machine asks for: none with a GPU, `overlay=tiny_cpu` without one. Notes and errors
go to stderr. Exit codes: 0 yes, 2 no, and one line says what to do.
"""

from __future__ import annotations

import argparse
import os
import sys

from recipe.spo.compat.machine import is_cpu_machine
from recipe.spo.model_shape import local_config

#: recipe/spo/config/overlay/: the same method on a small scale.
SMALL = "overlay=tiny_cpu"
WEIGHTS = (".safetensors", ".bin")


def problem(model: str, data: str, make_data: str, cpu: bool) -> str | None:
    """What is missing, in one sentence with the remedy; `None` if nothing is.

    Args:
        model: a folder, or an id of the Hugging Face hub.
        data: folder with train.parquet and validation.parquet.
        make_data: the command that makes it.
        cpu: whether this machine has no GPU.
    """
    folder = os.path.expanduser(model)
    if cpu and not os.path.isdir(folder):
        return (
            f"this machine has no GPU, and {model} is a model to be trained on one: to try it here, give the folder of "
            "a small model with MODEL=<folder> and its data with DATA=<folder> (`make demo` leaves both: "
            "MODEL=outputs/demo/policy DATA=outputs/demo/data)"
        )
    config = local_config(model)
    if config is None or not any(name.endswith(WEIGHTS) for name in os.listdir(config.parent)):
        if os.path.isdir(folder):
            return f"MODEL={model} holds no model (config.json and weights): give a Hugging Face model folder"
        return f"{model} is not on this machine: fetch it with `hf download {model}`, or give MODEL=<folder>"
    for split in ("train", "validation"):
        if not os.path.exists(os.path.join(data, f"{split}.parquet")):
            return f"{data}/{split}.parquet does not exist: make it with `{make_data}`, or give DATA=<folder>"
    return None


def main() -> None:
    """Check, and say where it is going to run."""
    parser = argparse.ArgumentParser(prog="examples.ready", description=__doc__)
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--data", required=True, help="folder with train.parquet and validation.parquet")
    parser.add_argument("--make-data", required=True, help="the command that makes it")
    options = parser.parse_args()
    cpu = is_cpu_machine()
    missing = problem(options.model, options.data, options.make_data, cpu)
    if missing:
        print(f"error: {missing}", file=sys.stderr)
        raise SystemExit(2)
    if cpu:
        print(
            f"note: this machine has no GPU: training {options.model} on the CPU with {SMALL} (short texts, few "
            "questions, two steps); further overrides change that",
            file=sys.stderr,
        )
        print(SMALL)


if __name__ == "__main__":
    main()
