"""Leaving nothing behind: only what carries the run's id is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory

import psutil
import pytest

from recipe.spo.compat.processes import RUN_ID_VARIABLE, owned_run
from tests.e2e import stack

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_processes_of_the_run_end_with_it_and_others_live():
    stranger = subprocess.Popen(SLEEP)
    try:
        with owned_run():
            # A detached grandchild, as Ray's daemons are.
            options = "stdout=subprocess.DEVNULL, start_new_session=True"
            starter = f"import subprocess; print(subprocess.Popen({SLEEP!r}, {options}).pid)"
            pid = int(subprocess.check_output([sys.executable, "-c", starter], text=True))
            assert psutil.pid_exists(pid)
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert RUN_ID_VARIABLE not in os.environ


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_processes_and_shared_memory(number):
    code = f"""
import subprocess, sys, time
from multiprocessing import shared_memory, resource_tracker
from recipe.spo.compat.processes import owned_run
with owned_run():
    child = subprocess.Popen({SLEEP!r}, start_new_session=True)
    segment = shared_memory.SharedMemory("verl_weights_test", create=True, size=64)
    resource_tracker.unregister(segment._name, "shared_memory")
    segment.close()
    print(child.pid, segment.name, flush=True)
    time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid, segment = run.stdout.readline().split()
    shared_memory.SharedMemory(segment).close()  # it is there
    run.send_signal(number)
    assert run.wait(timeout=20) != 0
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid))
    assert not os.path.exists(f"/dev/shm/{segment}")


LEAVES_A_SEGMENT = """
import os, signal, time
from multiprocessing import shared_memory, resource_tracker
segment = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(segment._name, "shared_memory")
print(segment.name, flush=True)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_memory_of_a_process_that_was_killed_goes_and_a_strangers_stays():
    stranger = shared_memory.SharedMemory(create=True, size=64)
    other = subprocess.run([sys.executable, "-c", LEAVES_A_SEGMENT], stdout=subprocess.PIPE, text=True, check=False)
    try:
        with owned_run(watch_seconds=0.1):
            child = subprocess.Popen([sys.executable, "-c", LEAVES_A_SEGMENT], stdout=subprocess.PIPE, text=True)
            left = child.stdout.readline().strip()
            assert child.wait() == -signal.SIGKILL
            assert os.path.exists(f"/dev/shm/{left}")  # nobody has removed it
        assert not os.path.exists(f"/dev/shm/{left}")
        assert os.path.exists(f"/dev/shm/{stranger.name}")
        assert os.path.exists(f"/dev/shm/{other.stdout.strip()}")
    finally:
        stranger.close()
        stranger.unlink()
        os.unlink(f"/dev/shm/{other.stdout.strip()}")


def test_the_end_to_end_tests_see_what_nobody_has_mapped_and_not_what_another_run_uses():
    before = stack.shared_memory()
    used = shared_memory.SharedMemory(create=True, size=64)
    left = subprocess.run([sys.executable, "-c", LEAVES_A_SEGMENT], stdout=subprocess.PIPE, text=True, check=False)
    left = left.stdout.strip()
    try:
        assert {left, used.name} <= stack.shared_memory() - before
        seen = stack.left_in_shared_memory(before)
        assert left in seen and used.name not in seen
    finally:
        os.unlink(f"/dev/shm/{left}")
        used.close()
        used.unlink()
