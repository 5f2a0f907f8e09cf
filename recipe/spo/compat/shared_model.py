"""The actor's and the reference's model configuration, with the word on whether they share prefixes.

For: verl's engines see the configuration of model and engine and nothing of `algorithm.spo`, and verl chooses an
engine by strategy, device and vendor alone. Comes in through `actor_rollout_ref.model._target_`: to unpickle a
`SharedPrefixModelConfig` is to import this module, and with it to register the engine, in every process that builds
a model; without sharing neither happens and the engine is verl's own.
Needless when: verl hands an engine settings of one's own, and takes an engine by its qualified name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import DictConfig, open_dict
from verl.workers.config import HFModelConfig

import recipe.spo.compat.shared_engine  # noqa: F401  # registers itself


# The word is in the class and not in a field: verl's vLLM server makes a plain `HFModelConfig` of the same node, which
# would refuse a key that it does not know.
@dataclass
class SharedPrefixModelConfig(HFModelConfig):
    """verl's model configuration, with `algorithm.spo.share_prefixes=on`."""

    share_prefixes: ClassVar[str] = "on"


@dataclass
class AutoSharedPrefixModelConfig(HFModelConfig):
    """The same with `auto`."""

    share_prefixes: ClassVar[str] = "auto"


def share_prefixes(config: DictConfig, mode: str) -> None:
    """Let actor and reference compute shared prefixes once.

    Args:
        config: the whole configuration; changed in place.
        mode: `on` or `auto`.
    """
    classes = {each.share_prefixes: each for each in (SharedPrefixModelConfig, AutoSharedPrefixModelConfig)}
    with open_dict(config.actor_rollout_ref.model):
        config.actor_rollout_ref.model["_target_"] = f"{__name__}.{classes[mode].__name__}"
