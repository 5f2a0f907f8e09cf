"""Which platform is this machine: `cpu` or `gpu`?

Read without importing torch or verl, so that the answer is there before either needs it. The driver's
answer travels to every process of the run in `SPO_PLATFORM`; `VERL_PLATFORM` (verl's own variable)
overrides what is found.
"""

from __future__ import annotations

import glob
import os
from importlib import metadata

PLATFORM_VARIABLE = "SPO_PLATFORM"

#: Device files of the accelerators that verl supports: NVIDIA, AMD, Huawei.
_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/davinci[0-9]*", "/dev/dxg")


def platform_name() -> str:
    """Return `cpu` without an accelerator, with a CPU build of torch, or when told so; else `gpu`."""
    for variable in (PLATFORM_VARIABLE, "VERL_PLATFORM"):
        chosen = os.environ.get(variable, "").strip().lower()
        if chosen:
            return "cpu" if chosen == "cpu" else "gpu"
    try:
        if metadata.version("torch").endswith("+cpu"):
            return "cpu"
    except metadata.PackageNotFoundError:
        pass
    return "gpu" if has_accelerator() else "cpu"


def has_accelerator() -> bool:
    """Whether this machine has one, whatever is to be used."""
    return any(glob.glob(pattern) for pattern in _DEVICE_FILES)


def is_cpu_machine() -> bool:
    """Whether the CPU platform of this package is in force."""
    return platform_name() == "cpu"
