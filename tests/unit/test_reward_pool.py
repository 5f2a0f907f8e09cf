"""Grader processes: bounded, replaced when they die, usable from many threads, and gone with the trainer."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipe.spo.rewards.pool import GraderPool, Task
from tests.conftest import REPOSITORY

EQUAL = Task("math-verify", ("(x+1)^2",), "x^2+2x+1")
UNEQUAL = Task("math-verify", ("(x+1)^2",), "x^2+2x")
POWERS = Task("math-verify", ("9^{9^{9^{9}}}+x",), "x+1")  # stays in C, where no alarm is heard


@pytest.fixture(scope="module")
def pool():
    pool = GraderPool()
    yield pool
    pool.close()


def test_it_answers(pool):
    assert pool.run_many([EQUAL, UNEQUAL] * 3) == ["correct", "wrong"] * 3
    assert pool.run(Task("math-verify", ("2\\sqrt{3}", "-2\\sqrt{3}"), "\\pm\\sqrt{12}")) == "correct"
    assert pool.run(Task("math-verify", ("2\\sqrt{3}", "\\sqrt{12}"), "\\sqrt{12}")) == "correct"
    assert pool.run(Task("math-verify", ("2\\sqrt{3}", "\\sqrt{13}"), "\\sqrt{12}")) == "ambiguous"


def test_what_takes_too_long_is_a_timeout_and_the_next_is_graded(pool):
    started = time.monotonic()
    assert pool.run(POWERS) in ("timeout", "wrong")
    assert time.monotonic() - started < 5
    assert pool.run(EQUAL) == "correct"


def test_a_killed_process_is_replaced_and_its_task_is_graded(pool):
    assert pool.run(EQUAL) == "correct"
    before = pool.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert pool.run(EQUAL) == "correct"
    assert not set(before) & set(pool.pids())


def test_killed_in_the_middle_of_a_task(pool, caplog):
    assert pool.run(EQUAL) == "correct"
    with ThreadPoolExecutor(1) as thread:
        integrals = "\\int_0^1 \\sin(x^x) \\, dx + y", "\\int_0^1 \\cos(x^x) \\, dx + y"
        slow = thread.submit(pool.run, Task("math-verify", integrals[:1], integrals[1]))
        time.sleep(0.05)
        for pid in pool.pids():
            os.kill(pid, signal.SIGKILL)
        assert slow.result(timeout=60) in ("wrong", "timeout")
    assert pool.run(EQUAL) == "correct"


def test_where_all_idle_processes_were_killed_unnoticed_a_new_one_does_the_task(monkeypatch, caplog):
    """As by the kernel for memory, so shortly before the task that they still look alive."""
    pool = GraderPool(size=2)
    assert pool.run_many([EQUAL, UNEQUAL] * 3) == ["correct", "wrong"] * 3
    pool._start_another()
    idle = list(pool._idle)
    assert len(idle) == 2
    for process in idle:
        process.wait_ready()
        os.kill(process.pid, signal.SIGKILL)
    monkeypatch.setattr(type(idle[0]), "alive", lambda self: True)
    assert pool.run(EQUAL) == "correct"
    assert caplog.text.count("died and is replaced") == 2
    assert not set(pool.pids()) & {process.pid for process in idle}
    pool.close()


def test_a_task_that_kills_three_processes_is_a_timeout(pool, monkeypatch, caplog):
    from recipe.spo.rewards import pool as module

    def ask(self, task, seconds):
        os.kill(self.pid, signal.SIGKILL)
        return real(self, task, seconds)

    real = module._Process.ask
    monkeypatch.setattr(module._Process, "ask", ask)
    assert pool.run(EQUAL) == "timeout"
    assert caplog.text.count("died and is replaced") == 3
    monkeypatch.undo()
    assert pool.run(EQUAL) == "correct"


def test_a_process_that_does_not_answer_is_killed(monkeypatch, caplog):
    pool = GraderPool(size=1, seconds=0.5)
    assert pool.run(EQUAL) == "correct"
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    assert pool.run(EQUAL) == "timeout"
    assert time.monotonic() - started < 4
    assert "was killed" in caplog.text and "0.0 s of computing" in caplog.text
    assert pool.run(EQUAL) == "correct"
    pool.close()


def test_one_that_hardly_gets_to_run_has_more_time(pool):
    """As on a busy machine: its limit is what it computes, not the clock."""
    assert pool.run(EQUAL) == "correct"
    stopped = pool.pids()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    wakes = threading.Timer(3.2, lambda: [os.kill(pid, signal.SIGCONT) for pid in stopped])
    wakes.start()
    assert pool.run(EQUAL) == "correct"
    wakes.join()


def test_one_that_computes_for_longer_than_its_alarm_is_killed_at_once(monkeypatch, caplog):
    from recipe.spo.rewards import pool as module

    pool = GraderPool(size=1, seconds=1.5)
    assert pool.run(EQUAL) == "correct"
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    monkeypatch.setattr(module._Process, "_computed", lambda self: 7 + 4 * (time.monotonic() - started))
    assert pool.run(EQUAL) == "timeout"
    assert time.monotonic() - started < 3
    assert "s of computing" in caplog.text
    pool.close()


def test_memory_is_limited(pool):
    assert pool.run(EQUAL) == "correct"
    for pid in pool.pids():
        limits = Path(f"/proc/{pid}/limits").read_text()
        rows = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
        assert int(rows["Max address space"]) == 1024 * 2**20
        assert int(rows["Max file size"]) == 0
    huge = Task("math-verify", ("2^{99999999999}+1",), "2^{99999999999}")
    assert pool.run(huge) in ("timeout", "wrong")
    assert pool.run(EQUAL) == "correct"


def test_the_process_imports_no_trainer_and_stays_small(pool):
    assert pool.run(EQUAL) == "correct"
    for pid in pool.pids():
        libraries = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in libraries and "/ray/" not in libraries
        status = Path(f"/proc/{pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < 200_000


def test_many_threads_at_once(pool):
    tasks = [EQUAL, UNEQUAL] * 40
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(pool.run, tasks)) == ["correct", "wrong"] * 40
    assert 1 <= len(pool.pids()) <= 2


def test_a_second_process_starts_only_when_the_first_is_busy():
    pool = GraderPool(size=2)
    for _ in range(3):
        pool.run(EQUAL)
    assert len(pool.pids()) == 1
    pool.close()
    assert pool.pids() == []


def test_the_processes_end_with_the_trainer_even_if_it_is_killed():
    script = """
import os, signal
from recipe.spo.rewards.pool import Task, shared_pool
pool = shared_pool()
pool.run(Task("math-verify", ("x+y",), "y+x"))
print(*pool.pids(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    (pid,) = map(int, done.stdout.split())
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_where_no_process_starts_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="no grader process starts here"):
        GraderPool().run(EQUAL)


def test_a_forked_child_has_its_own_graders():
    from recipe.spo.rewards.pool import shared_pool

    assert shared_pool() is shared_pool()
    ours = id(shared_pool())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"same" if id(shared_pool()) == ours else b"own")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"own"


def test_a_large_trainer_does_not_make_its_graders_look_large():
    script = """
from recipe.spo.rewards.pool import GraderPool, Task
held = b"x" * 700_000_000
pool = GraderPool(size=1)
seen = set()
for _ in range(4):
    pool.run(Task("math-verify", ("x+y",), "y+x"))
    seen |= set(pool.pids())
print(len(seen))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.stdout == "1\n", done.stderr


def test_nothing_runs_while_idle(pool):
    assert pool.run(EQUAL) == "correct"
    assert not [thread for thread in threading.enumerate() if "pool" in thread.name.lower()]
