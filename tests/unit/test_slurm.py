"""examples/slurm.sbatch with stand-ins for SLURM's commands and Ray's."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

STAND_INS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    # Options away, then the command; what runs is written down.
    "srun": """
while [ "${1#-}" != "$1" ]; do [ "$1" = -w ] && shift; shift; done
case "$1" in hostname) echo 10.0.0.1; exit;; esac
echo "$*" >> "$CALLS"
exec "$@" """,
    "ray": """[ "$1" = status ] && echo " 0.0/${GPUS_THAT_JOINED}.0 GPU"; true""",
    "make": "true",
}


@pytest.fixture
def submit(tmp_path):
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def run(joined: int, **variables: str):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PY": str(tmp_path / "python"),
            "CALLS": str(tmp_path / "calls"),
            "GPUS_THAT_JOINED": str(joined),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "8",
            "PATIENCE": "0",
            **variables,
        }
        command = ["bash", str(REPOSITORY / "examples/slurm.sbatch")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    return run


def calls_of(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_it_trains_once_on_all_machines_when_all_have_joined(submit, tmp_path):
    done = submit(joined=16, METHOD="chain", OUT="/shared/run")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10  # Ray is started in the background
    while len(starts := [call for call in calls_of(tmp_path) if " start " in call]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(starts) == 2 and all("--num-gpus=8" in call and call.endswith("--block") for call in starts)
    assert sum("--head" in call for call in starts) == sum("--address=10.0.0.1:6379" in call for call in starts) == 1
    (train,) = [call for call in calls_of(tmp_path) if " make " in call]
    assert train.startswith("env RAY_ADDRESS=10.0.0.1:6379 make train-gsm8k")
    assert all(word in train.split() for word in ("NODES=2", "GPUS=8", "METHOD=chain", "OUT=/shared/run"))


def test_it_gives_up_when_machines_are_missing(submit, tmp_path):
    done = submit(joined=8)
    assert done.returncode == 1 and "error: not all of 2 machines with 8 GPUs each have joined" in done.stderr
    assert not any(" make " in call for call in calls_of(tmp_path))


def test_a_job_without_gpus_is_told(submit):
    done = submit(joined=0, SLURM_GPUS_ON_NODE="")
    assert done.returncode != 0 and "the job has no GPUs: add --gpus-per-node" in done.stderr
