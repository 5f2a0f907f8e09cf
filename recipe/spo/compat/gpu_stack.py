"""Is the environment for GPUs what verl was released with? `python -m recipe.spo.compat.gpu_stack` says.

The releases that belong together stand in verl's own metadata (its extra `vllm`), and nowhere else here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

#: verl's extra that holds its vLLM stack.
EXTRA = "vllm"
#: The packages that must be the very releases of the extra; pip sees to the others.
CHECKED = ("torch", "vllm", "transformers", "tensordict")


def problems() -> list[str]:
    """What is wrong with this environment's packages, a sentence each; empty: nothing."""
    found = []
    for requirement in _of_extra("verl", EXTRA):
        if requirement.name.lower() not in CHECKED:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is not installed, verl[{EXTRA}] needs {requirement}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version} is installed, verl[{EXTRA}] needs {requirement.specifier}")
        if version.endswith("+cpu"):
            found.append(f"{requirement.name} {version} is a build for the CPU")
    return found


def _of_extra(package: str, extra: str) -> Iterator[Requirement]:
    """The requirements that an extra adds, those of extras that it names included."""
    for line in metadata.requires(package) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == package:
            for inner in sorted(requirement.extras):
                yield from _of_extra(package, inner)
        else:
            yield requirement


def main() -> None:
    """Check packages, plug-in and GPUs; exit code 2 and one line if something is wrong."""
    from recipe.spo.compat.machine import has_accelerator
    from recipe.spo.compat.versions import VersionError, check_verl_version
    from recipe.spo.main_spo import check_plugin, refuse

    try:
        check_verl_version()
    except VersionError as error:
        refuse(error)
    wrong = problems()
    if wrong:
        refuse("; ".join(wrong) + "; install again with `make setup-gpu`, or pip install -e '.[gpu]'")
    check_plugin()
    if not has_accelerator():
        print("note: there is no GPU on this machine, so none was looked for", file=sys.stderr)
        return
    import torch

    if not torch.cuda.is_available():
        refuse(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU: look at nvidia-smi, whether "
            "the driver is new enough for that CUDA, and at CUDA_VISIBLE_DEVICES"
        )
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"torch {torch.__version__}, {len(names)} GPUs: {', '.join(sorted(set(names)))}")


if __name__ == "__main__":
    main()
