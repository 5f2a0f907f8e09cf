"""What verl loads in every one of its processes (entry point group `verl.plugins`).

verl imports this module, and nothing more, at the end of `import verl`; an exception here is logged
at DEBUG level only, so `main_spo` checks before it starts anything. Names registered with verl:
advantage estimator `spo`, policy losses `spo`, `spo_whitened` and `spo_published`, and, on a machine
without a GPU, platform `cpu`. The trainer `spo_sync` is registered where it is used (see `compat/task_runner.py`).
"""

from __future__ import annotations

import sys

from recipe.spo.compat.machine import is_cpu_machine, platform_name
from recipe.spo.compat.versions import VersionError, check_verl_version

_registered = False


def register() -> None:
    """Register everything with verl; idempotent."""
    global _registered
    if _registered:
        return
    try:
        check_verl_version()
    except VersionError as error:
        print(f"recipe.spo is not loaded: {error}", file=sys.stderr)
        return
    if is_cpu_machine():
        from recipe.spo.compat import verl_cpu

        verl_cpu.prepare_environment()
        import recipe.spo.compat.platform_cpu  # noqa: F401  # registers itself

        verl_cpu.apply()
    register_resolver()
    from recipe.spo.compat import aged_loss, weight_sockets

    weight_sockets.apply()
    import recipe.spo.algorithm  # noqa: F401  # registers estimator and policy loss

    aged_loss.apply()
    _registered = True


def register_resolver() -> None:
    """Let `config/spo_trainer.yaml` choose between platform/cpu.yaml and platform/gpu.yaml."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("spo_platform", platform_name, replace=True)


def missing_registrations() -> list[str]:
    """Names that verl should know by now and does not; empty if everything is registered."""
    from verl.plugin.platform import PlatformRegistry
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    missing = []
    if "spo" not in ADV_ESTIMATOR_REGISTRY:
        missing.append("advantage estimator 'spo'")
    missing += [
        f"policy loss '{name}'" for name in ("spo", "spo_whitened", "spo_published") if name not in POLICY_LOSS_REGISTRY
    ]
    if is_cpu_machine() and PlatformRegistry.get("cpu") is None:
        missing.append("platform 'cpu'")
    return missing


register()
