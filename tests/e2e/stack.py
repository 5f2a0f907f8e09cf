"""Running the whole stack on a small data set and policy, as a user does from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from recipe.spo.compat.processes import mapped_files, remove_shm_segments, shm_segments
from recipe.spo.training_log import read_records
from tests.conftest import REPOSITORY

QUESTIONS, OPTIMIZER_STEPS = 12, 4


def command_of(arithmetic: Path, policy: Path, out: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "recipe.spo.main_spo"),
        f"data.train_files={arithmetic / 'train.parquet'}",
        f"data.val_files={arithmetic / 'validation.parquet'}",
        f"data.train_batch_size={QUESTIONS}",
        "data.max_prompt_length=64",
        "data.max_response_length=40",
        f"algorithm.spo.optimizer_steps={OPTIMIZER_STEPS}",
        f"algorithm.spo.dump_dir={out / 'dump'}",
        "algorithm.spo.dump_sample=null",
        f"actor_rollout_ref.model.path={policy}",
        "actor_rollout_ref.rollout.temperature=1.0",
        "actor_rollout_ref.actor.optim.lr=3e-4",  # large, so that a missed weight sync shows
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        f"trainer.default_local_dir={out / 'checkpoints'}",
        f"trainer.rollout_data_dir={out / 'rollouts'}",
        "trainer.logger=[console,file]",
        *overrides,
    ]


def environment_of(out: Path, **variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl"),
        "SPO_OUTPUT_DIR": str(out),
        "SPO_TEST_MARK": str(out),
        **variables,
    }


def train(
    arithmetic: Path, policy: Path, out: Path, *overrides: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(arithmetic, policy, out, *overrides),
        cwd=REPOSITORY,
        env=environment_of(out, **variables),
        capture_output=True,
        text=True,
        timeout=900,
    )


def train_and_kill(
    arithmetic: Path, policy: Path, out: Path, after_step: int, *overrides: str, **variables: str
) -> None:
    """SIGKILL the driver once a step has been logged, and end what it cannot end any more."""
    out.mkdir(parents=True, exist_ok=True)
    segments = shm_segments()
    with open(out / "log", "w") as log:
        process = subprocess.Popen(
            command_of(arithmetic, policy, out, *overrides),
            cwd=REPOSITORY,
            env=environment_of(out, **variables),
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + 900
        while max((record["step"] for record in read_records(out / "metrics.jsonl")), default=-1) < after_step:
            assert process.poll() is None and time.monotonic() < deadline, (out / "log").read_text()[-3000:]
            time.sleep(0.2)
        process.kill()
        process.wait()
    left = processes_of(str(out))
    mapped = mapped_files(left)
    for one in left:
        one.send_signal(signal.SIGKILL)
    psutil.wait_procs(left, timeout=30)
    remove_shm_segments(segments, mapped)


def processes_of(mark: str) -> list[psutil.Process]:
    """Processes that a run with this mark in its environment has left."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPO_TEST_MARK") == mark:
                left.append(process)
        except (psutil.Error, OSError):
            continue
    return left


def shared_memory() -> set[str]:
    """verl's weight buckets and what vLLM's processes talk through."""
    return {path.name for pattern in ("verl_weights_*", "psm_*") for path in Path("/dev/shm").glob(pattern)}


def left_in_shared_memory(before: set[str]) -> set[str]:
    """What has appeared there since `before` and no living process has mapped.

    What one has mapped is taken for another run's; this run's processes are looked for by `processes_of`.
    """
    new = shared_memory() - before  # before the processes, since another run may make one meanwhile
    mapped = mapped_files(psutil.process_iter())
    return {name for name in new if f"/dev/shm/{name}" not in mapped}


def step_metrics_of(out: Path) -> dict[int, dict[str, float]]:
    """Metrics of the training steps; step 0, if there, is the validation before training."""
    return {record["step"]: record["data"] for record in read_records(out / "metrics.jsonl") if record["step"] > 0}
