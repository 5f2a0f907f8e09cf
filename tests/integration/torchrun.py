"""Running a module of the tests under torchrun, and composing the configuration that such a module trains with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY


def results_of(
    module: str, model: Path, ranks: int, *overrides: str, timeout: float, **variables: str
) -> list[dict[str, Any]]:
    """What a module printed as its `RESULT` on so many ranks of a CPU; the rest of it goes to standard output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*command, "-m", module, str(model), *overrides],
        cwd=REPOSITORY,
        env={**os.environ, "VERL_PLATFORM": "cpu", **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0 and lines, done.stderr[-3000:]
    print(done.stdout.replace(lines[0], ""))
    return json.loads(lines[0].removeprefix("RESULT "))


def composed(model: str, *overrides: str) -> Any:
    """The whole configuration on as many ranks as there are, with a learning rate of 0, unresolved."""
    import verl  # noqa: F401  # loads the plug-in, and with it the CPU platform
    from hydra import compose, initialize_config_module

    with initialize_config_module("recipe.spo.config", version_base=None):
        return compose(
            "spo_trainer",
            overrides=[
                f"actor_rollout_ref.model.path={model}",
                "actor_rollout_ref.actor.optim.lr=0.0",
                f"trainer.n_gpus_per_node={os.environ['WORLD_SIZE']}",
                *overrides,
            ],
        )
