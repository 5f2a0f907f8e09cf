"""The critic's model with the attention that the configuration asks for.

For: machines without flash-attention. verl 0.9.1 loads a value model with flash_attention_2, whatever
`critic.model.override_config.attn_implementation` says, and then reports that trl is missing.
Comes in through `critic.model._target_`: to unpickle a `CriticModelConfig` is to import this module,
in every process that builds a critic.
Needless when: verl passes the configured attention on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import verl.utils.model
from transformers import AutoModelForTokenClassification
from verl.workers.config import HFModelConfig


@dataclass
class CriticModelConfig(HFModelConfig):
    """verl's model configuration, for a critic."""


def load_valuehead_model(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
    """A model with one output a token; its head is drawn at random unless the checkpoint has one."""
    return AutoModelForTokenClassification.from_pretrained(
        local_path,
        dtype=torch_dtype,
        config=model_config,
        attn_implementation=model_config._attn_implementation,
        trust_remote_code=trust_remote_code,
    )


verl.utils.model.load_valuehead_model = load_valuehead_model
