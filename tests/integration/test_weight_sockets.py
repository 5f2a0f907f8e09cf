"""Two runs on one machine do not take each other's weights: verl's own transfer, in real processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipe.spo.compat.processes import RUN_ID_VARIABLE, SOCKETS, owned_run
from recipe.spo.compat.weight_sockets import own_handle
from recipe.spo.main_spo import set_variables

#: As verl names it in the first job of every Ray.
HANDLE = f"ipc://{SOCKETS}01000000-replica-7-rank-0.sock"
SYNCS = 20

#: A trainer and its engine, which hand over weights of one value only; the engine says how often it got another.
RUN = f"""
import asyncio, sys, threading, time
import verl  # loads the plug-in
import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

value, strange = float(sys.argv[1]), 0

def received(weights, is_last):
    global strange
    strange += sum(not bool((tensor == value).all()) for _, tensor in weights)

print("ready", flush=True)
sys.stdin.readline()
for _ in range({SYNCS}):
    receiver = BucketedWeightReceiver({HANDLE!r}, device=torch.device("cpu"), use_shm=True)
    engine = threading.Thread(target=receiver.receive_weights, args=[received], daemon=True)
    engine.start()
    time.sleep(0.01)  # as between verl's call of the engine and its own socket
    sender = BucketedWeightSender({HANDLE!r}, bucket_size_mb=1, use_shm=True)
    asyncio.run(sender.async_send_weights(iter([("w", torch.full((1000,), value))])))
    engine.join()
print(strange, flush=True)
"""


def start(value: int, run_id: str) -> subprocess.Popen:
    environment = {**os.environ, RUN_ID_VARIABLE: run_id}
    command = [sys.executable, "-c", RUN, str(value)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_runs_at_once_get_their_own_weights():
    runs = [start(1, "one"), start(2, "other")]
    try:
        for run in runs:
            assert any(line == "ready\n" for line in run.stdout)
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        for run in runs:
            assert run.communicate(timeout=120)[0] == "0\n" and run.returncode == 0
    finally:
        for run in runs:
            run.kill()


def test_the_name_bears_the_run():
    one, other = own_handle(HANDLE, "one"), own_handle(HANDLE, "other")
    assert one == f"ipc://{SOCKETS}one-01000000-replica-7-rank-0.sock" != other
    assert own_handle(HANDLE, None) == HANDLE
    assert len(own_handle(HANDLE, "f" * 32).removeprefix("ipc://")) < 108, "what Linux allows"
    with pytest.raises(RuntimeError, match="verl's weight socket is called ipc:///elsewhere.sock"):
        own_handle("ipc:///elsewhere.sock", "one")


def test_verl_still_names_its_sockets_so():
    # Both ends build the name on their own.
    for module in ("vllm_rollout", "utils"):
        spec = importlib.util.find_spec(f"verl.workers.rollout.vllm_rollout.{module}")
        assert f'f"ipc://{SOCKETS}{{job_id}}-' in Path(spec.origin).read_text()


def test_looking_for_the_module_and_loading_it_again_leave_it_patched():
    code = """
import importlib, importlib.util, verl
name = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
assert importlib.util.find_spec(name) is not None
module = importlib.import_module(name)
ends = lambda: [getattr(module, end).__init__ for end in ("BucketedWeightSender", "BucketedWeightReceiver")]
assert all(init._spo_patched for init in ends())
importlib.reload(module)
assert all(init._spo_patched for init in ends())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_process_of_a_run_gets_its_id():
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"num_cpus": 2}}})
    set_variables(config, {RUN_ID_VARIABLE: "one"})
    assert config.ray_kwargs.ray_init == {"num_cpus": 2, "runtime_env": {"env_vars": {RUN_ID_VARIABLE: "one"}}}


def test_what_a_killed_run_leaves_is_removed():
    with owned_run() as run_id:
        names = [own_handle(HANDLE, each).removeprefix("ipc://") for each in (run_id, "stranger")]
        for name in names:
            open(name, "w").close()
    try:
        assert [os.path.exists(name) for name in names] == [False, True]
    finally:
        os.unlink(names[1])
