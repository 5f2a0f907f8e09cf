"""Can a run share prefixes (`algorithm.spo.share_prefixes`)? What is known before anything starts.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.spo.inputs import PreflightError
from recipe.spo.settings import SPOSettings

ROOT = "actor_rollout_ref"


def check_sharing(config: DictConfig, settings: SPOSettings) -> None:
    """Refuse settings of verl that do not go with shared prefixes.

    What depends on the model's own configuration is refused where it is loaded, see `recipe.spo.sharing`.

    Raises:
        PreflightError: naming the key.
    """
    if settings.share_prefixes == "off":
        return
    model = config.actor_rollout_ref.model
    if model.get("use_fused_kernels"):
        raise _refused(f"{ROOT}.model.use_fused_kernels is on: they compute the head on every token")
    if config.actor_rollout_ref.actor.get("calculate_sum_pi_squared"):
        raise _refused(f"{ROOT}.actor.calculate_sum_pi_squared is on: it needs all logits; switch it off")
    attention = (model.get("override_config") or {}).get("attn_implementation", "flash_attention_2")
    if attention == "eager":
        raise _refused(f"{ROOT}.model.override_config.attn_implementation is 'eager': use 'sdpa'")
    for part in ("actor", "ref"):
        node = config.actor_rollout_ref[part]
        engine = node.get("fsdp_config") or {}
        if node.strategy != "fsdp2":
            raise _refused(f"{ROOT}.{part}.strategy is {node.strategy!r}: use 'fsdp2'")
        if (node.get("ulysses_sequence_parallel_size") or 1) > 1:
            raise _refused(f"{ROOT}.{part}.ulysses_sequence_parallel_size cuts rows among GPUs: use 1")
        if engine.get("pad_to_length"):
            raise _refused(f"{ROOT}.{part}.fsdp_config.pad_to_length is on: switch it off")


def _refused(why: str) -> PreflightError:
    return PreflightError(f"{why}, or set algorithm.spo.share_prefixes=off")
