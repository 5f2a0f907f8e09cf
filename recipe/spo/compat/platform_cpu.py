"""A CPU platform for verl, through verl's own platform plug-in point.

verl 0.9.1 has platforms for CUDA, ROCm and NPU. This one lets the same trainer, FSDP2 actor and
rollout server run on a machine without any of them. It becomes needless when verl ships one.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _resident_bytes(*_: Any) -> int:
    return psutil.Process().memory_info().rss


class _CPUDeviceModule(types.ModuleType):
    """`torch.cpu` with the functions of `torch.cuda` that verl calls on its device module."""

    def __init__(self) -> None:
        super().__init__("spo_torch_cpu")
        self.is_available = lambda: True
        self.device_count = lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.current_device = lambda: "cpu"
        self.set_device = lambda *_: None
        self.synchronize = lambda *_: None
        self.empty_cache = lambda: None
        self.ipc_collect = lambda: None
        # "Device memory" of a CPU process is what it has resident.
        self.memory_allocated = _resident_bytes
        self.memory_reserved = _resident_bytes
        self.max_memory_allocated = _resident_bytes
        self.max_memory_reserved = _resident_bytes
        self.reset_peak_memory_stats = lambda *_: None
        self.mem_get_info = lambda *_: (psutil.virtual_memory().available, psutil.virtual_memory().total)
        self.get_device_name = lambda *_: "CPU"
        self.manual_seed = torch.manual_seed
        self.manual_seed_all = torch.manual_seed
        self.get_rng_state = lambda *_: torch.get_rng_state()
        self.set_rng_state = lambda state, *_: torch.set_rng_state(state)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """The CPU as verl's device: gloo collectives, no IPC, no profiler, Ray's logical GPUs."""

    def __init__(self) -> None:
        self._module = _CPUDeviceModule()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:  # type: ignore[override]  # torch refuses index 0 on the CPU
        return "cpu"

    def device_count(self) -> int:
        return self._module.device_count()

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        # verl's resource check and placement groups know GPU and NPU only; the GPUs that Ray counts
        # here are logical ones (`ray_init.num_gpus` in config/platform/cpu.yaml).
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None
