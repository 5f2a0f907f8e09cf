"""The environment for GPUs: what its check complains of, and what its set-up refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest

from recipe.spo.compat import gpu_stack
from recipe.spo.compat.machine import has_accelerator
from tests.conftest import REPOSITORY

REQUIRES = {
    "verl": [
        "ray",
        'verl[core]; extra == "vllm"',
        'torch==2.11.0; extra == "vllm"',
        'vllm==0.24.0; extra == "vllm"',
        'torch==1.0; extra == "sglang"',
        'tensordict!=0.9.0,<=0.10.0; extra == "core"',
    ]
}
RIGHT = {"torch": "2.11.0+cu130", "vllm": "0.24.0", "tensordict": "0.10.0"}


@pytest.fixture
def installed(monkeypatch):
    """Set what is installed."""

    def install(versions: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(gpu_stack.metadata, "requires", REQUIRES.get)
        monkeypatch.setattr(gpu_stack.metadata, "version", version)

    return install


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"torch": "2.13.0"}, "torch 2.13.0 is installed, verl[vllm] needs ==2.11.0"),
        ({"torch": "2.11.0+cpu"}, "torch 2.11.0+cpu is a build for the CPU"),
        ({"vllm": None}, "vllm is not installed, verl[vllm] needs vllm==0.24.0"),
        ({"tensordict": "0.9.0"}, "tensordict 0.9.0 is installed, verl[vllm] needs !=0.9.0,<=0.10.0"),
    ],
)
def test_what_does_not_belong_to_verls_releases_is_named(installed, changes, problem):
    installed({name: version for name, version in {**RIGHT, **changes}.items() if version})
    (found,) = gpu_stack.problems()
    assert found.startswith(problem)


def test_verls_own_releases_pass(installed):
    installed(RIGHT)
    assert gpu_stack.problems() == []


def test_verl_has_the_extra_that_is_checked():
    named = {requirement.name for requirement in gpu_stack._of_extra("verl", gpu_stack.EXTRA)}
    assert set(gpu_stack.CHECKED) <= named


def set_up(tmp_path, **variables: str):
    environment = {**os.environ, "PYTHON": sys.executable, "GPU_VENV": str(tmp_path / "venv"), **variables}
    return subprocess.run(
        ["bash", "scripts/setup_gpu.sh"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.skipif(has_accelerator(), reason="this machine has an accelerator")
def test_set_up_does_nothing_without_a_gpu(tmp_path):
    done = set_up(tmp_path, SPO_PLATFORM="")
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "venv").exists()
    assert (
        done.stderr.startswith("error: this machine has no NVIDIA GPU: `make setup`") and done.stderr.count("\n") == 1
    )


def test_set_up_leaves_the_cpus_environment_alone(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".spo-cpu").touch()
    done = set_up(tmp_path, SPO_PLATFORM="gpu")
    assert done.returncode == 2 and "is the CPU's environment" in done.stderr and done.stdout == ""
    done = set_up(tmp_path, SPO_PLATFORM="gpu", GPU_VENV=str(tmp_path / "other"), PYTHON="false")
    assert done.returncode == 2 and "false is not Python 3.11 or 3.12" in done.stderr
