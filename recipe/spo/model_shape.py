"""What is known about a model from its config.json alone; nothing is downloaded, no weight is read.

The checks and the plan of a run look at the folder that `actor_rollout_ref.model.path` names, or at
what the Hugging Face cache holds of a hub id.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ModelShapeError(ValueError):
    """A config.json that cannot be read, or that no model can be built from."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a causal language model, counted on the meta device.

    Attributes:
        architecture: its class.
        parameters: all of them, tied ones once.
        layer_parameters: of its largest decoder layer.
        layers: decoder layers.
        hidden_size, intermediate_size, vocabulary: widths, in features and tokens.
        linear_modules: full name -> (inputs, outputs) of every linear layer but the output head.
    """

    architecture: str
    parameters: int
    layer_parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    linear_modules: dict[str, tuple[int, int]]

    @property
    def parameters_outside_layers(self) -> int:
        """Embeddings and the rest."""
        return max(self.parameters - self.layers * self.layer_parameters, 0)


def local_config(path: str) -> Path | None:
    """The config.json of a model folder, or of a hub id as far as it is cached; `None` if there is none here."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        file = Path(path) / "config.json"
        return file if file.exists() else None
    if path.startswith((".", "/")) or path.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, "config.json")
    return Path(found) if isinstance(found, str) else None


def read_config(file: Path) -> dict[str, Any]:
    """The text model's part of a config.json, as plain values.

    Raises:
        ModelShapeError: it is no JSON object.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelShapeError(f"{file} cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise ModelShapeError(f"{file} holds no JSON object")
    return {**config, **(config.get("text_config") or {})}


def measure(folder: Path, trust_remote_code: bool = False) -> ModelShape:
    """Build the model without weights and count.

    Args:
        folder: where its config.json lies.
        trust_remote_code: whether the folder's own code may run (`actor_rollout_ref.model.trust_remote_code`).

    Raises:
        ModelShapeError: transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelShapeError(f"transformers cannot build the model of {folder} ({error})") from None
    text = config.get_text_config()
    head = model.get_output_embeddings()
    # FSDP gathers one of these at a time.
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    hidden = text.hidden_size
    return ModelShape(
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        layer_parameters=max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0),
        layers=text.num_hidden_layers,
        hidden_size=hidden,
        # GPT-2 has none: it means four times the hidden size.
        intermediate_size=getattr(text, "intermediate_size", None) or 4 * hidden,
        vocabulary=text.vocab_size,
        linear_modules={
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        },
    )
