"""Which platform is this machine: `cpu` or `gpu`?

Read without importing torch or verl, so that the answer is there before either needs it.
`VERL_PLATFORM` (verl's own variable) overrides what is found.
"""

from __future__ import annotations

import glob
import os

#: Device files of the accelerators that verl supports: NVIDIA, AMD, Huawei.
_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/davinci[0-9]*", "/dev/dxg")


def platform_name() -> str:
    """Return `cpu` on a machine without an accelerator (or when told so), else `gpu`."""
    chosen = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if chosen:
        return "cpu" if chosen == "cpu" else "gpu"
    return "gpu" if any(glob.glob(pattern) for pattern in _DEVICE_FILES) else "cpu"


def is_cpu_machine() -> bool:
    """Whether the CPU platform of this package is in force."""
    return platform_name() == "cpu"
