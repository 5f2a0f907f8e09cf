"""Grader processes: bounded in time and memory, replaced when they die.

A process is a plain `python -m recipe.spo.rewards.worker` with a pipe each way. It is neither forked
(the trainer has threads) nor started by `multiprocessing`, whose children import the trainer's main
module again, and with it torch and Ray. Two are started at most, the second only when the first is busy
or was killed: then there is a spare one while the next starts.
An idle one takes about 65 MB. Without work nothing runs: there are no helper threads.

A comparison takes 4.5 s on the clock at most. Waiting comes on top: for a free process, if more threads ask
than there are processes, and for one to start (a second or two of computing), at first and after kills.

The environment may set SPO_GRADERS (processes, 2) and SPO_GRADER_MEMORY_MB (each, 1024).
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
from tqdm import tqdm

log = logging.getLogger(__name__)

#: Seconds in which a process must be there, on a machine that is busy with training.
START_SECONDS = 120.0
#: A process stops by itself when it has computed for its limit. Where it does not (it is in C code), it is
#: killed when it has computed for a moment more; we look so often. On the clock it has so many times the limit.
MOMENT, LOOK, PATIENCE = 0.5, 0.1, 3.0
#: Processes that a task is tried on if they die. The last is a new one: all that were idle may have been killed.
TRIES = 3
MAX_REPLY = 4096


@dataclass(frozen=True, slots=True)
class Task:
    """A comparison for a grader process.

    Attributes:
        grader: "math-verify" or "minerva".
        predicted: the answers of a final statement.
        gold: the ground truth.
    """

    grader: str
    predicted: tuple[str, ...]
    gold: str


class Died(Exception):
    """A grader process ended in the middle of something."""


class TooSlow(Exception):
    """A grader process did not answer in time; the message says how long it had."""


class _Process:
    """One grader process, used by one thread at a time."""

    def __init__(self, megabytes: int, seconds: float) -> None:
        # Of the environment it gets what Python needs; a fixed hash seed makes sympy's order the same.
        keep = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "VIRTUAL_ENV")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recipe.spo.rewards.worker", str(megabytes), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in keep if name in os.environ}
            | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONHASHSEED": "0"},
        )
        self._seconds = seconds
        self._usage = psutil.Process(self._process.pid)
        self._ready = False
        self._rest = b""
        self._reads = selectors.DefaultSelector()
        self._reads.register(self._process.stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Waits until it is there; raises Died or TooSlow if it never is."""
        if not self._ready:
            self._line(START_SECONDS)
            self._ready = True

    def ask(self, task: Task, seconds: float) -> tuple[str, bool]:
        """Has it do a task within so many seconds on the clock; raises Died or TooSlow.

        It is too slow before that if it computes for longer than its own limit.

        Returns:
            What it says, and whether it ends now because it holds too much memory.
        """
        computed = self._computed()
        request = {"grader": task.grader, "predicted": task.predicted, "gold": task.gold}
        try:
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Died from error
        reply = json.loads(self._line(seconds, computed + self._seconds + MOMENT))
        return reply["said"], reply["last"]

    def _computed(self) -> float:
        """Seconds of computing since it began."""
        try:
            used = self._usage.cpu_times()
        except psutil.Error as error:
            raise Died from error
        return used.user + used.system

    def _line(self, seconds: float, computing: float = math.inf) -> bytes:
        """Reads a line, within so many seconds on the clock and before it has computed for so many in all."""
        started, before = time.monotonic(), self._computed()
        while b"\n" not in self._rest:
            took = time.monotonic() - started
            if not self._reads.select(max(0.0, min(seconds - took, LOOK))):
                now = self._computed()
                if took >= seconds or now >= computing:
                    raise TooSlow(f"no answer in {took:.1f} s on the clock, {now - before:.1f} s of computing")
                continue
            read = os.read(self._process.stdout.fileno(), MAX_REPLY)
            if not read or len(self._rest) > MAX_REPLY:
                raise Died
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def alive(self) -> bool:
        """Whether it runs, as far as one can tell."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it, and gives its pipes back."""
        self._process.kill()
        self._process.wait()
        self._reads.close()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:  # what it never read
                pass


class GraderPool:
    """Grader processes, shared by all threads of this process.

    Args:
        size: processes at most; they start when there is work for them.
        seconds: of computing for one task. On the clock it has 4.5 s for 1.5, over all tries, so that a
            busy machine changes no verdict; one that gives a process less than a third of a core may.
        megabytes: of address space for each process.
    """

    def __init__(self, size: int = 2, seconds: float = 1.5, megabytes: int = 1024) -> None:
        self.size, self.seconds, self.megabytes = size, seconds, megabytes
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._owner = os.getpid()

    def run(self, task: Task) -> str:
        """Does a task, waiting for a free process if all are busy.

        If a process dies, the task goes to another, `TRIES` in all; then it is "timeout". All tries
        share the time that one has.

        Returns:
            "correct", "wrong", "ambiguous" or "timeout".

        Raises:
            RuntimeError: no grader process starts here, whatever the task.
        """
        left = PATIENCE * self.seconds
        with self._slots:
            for number in range(1, TRIES + 1):
                process = self._take(new=number == TRIES)
                started = time.monotonic()
                try:
                    said, last = process.ask(task, left)
                except TooSlow as why:
                    self._drop(process)
                    self._start_another()
                    log.warning("a grader process was killed: %s; its task: %.80r", why, task)
                    return "timeout"
                except (Died, ValueError):
                    self._drop(process)
                    log.warning("a grader process died and is replaced; its task: %.80r", task)
                    left -= time.monotonic() - started
                    continue
                except BaseException:  # an interrupt: what it answers would go to the wrong task
                    self._drop(process)
                    raise
                if last:
                    self._drop(process)
                    self._start_another()
                else:
                    self._give_back(process)
                if said == "memory":
                    log.warning("a comparison needed more than %s MB: %.80r", self.megabytes, task)
                return said if said in ("correct", "wrong", "ambiguous") else "timeout"
        return "timeout"

    def run_many(self, tasks: Sequence[Task], progress: bool = False) -> list[str]:
        """Does tasks on all processes, in any order; answers in the order of the tasks."""
        with ThreadPoolExecutor(self.size) as threads:
            found: Iterable[str] = threads.map(self.run, tasks)
            return list(tqdm(found, total=len(tasks), desc="grading", disable=not progress))

    def pids(self) -> list[int]:
        """Process ids of those that run."""
        with self._lock:
            return [process.pid for process in (*self._idle, *self._busy) if process.alive()]

    def close(self) -> None:
        """Ends all processes; a later task starts new ones."""
        with self._lock:
            ended, self._idle = self._idle, []
            ended += self._busy
        if os.getpid() == self._owner:
            for process in ended:
                process.end()

    def _take(self, new: bool = False) -> _Process:
        for _ in range(3 + self.size):  # as many may have died in idleness
            with self._lock:
                if new and self._idle:
                    self._idle.pop(0).end()
                process = self._idle.pop() if self._idle and not new else _Process(self.megabytes, self.seconds)
                self._busy.add(process)
            if process.alive():
                try:
                    process.wait_ready()
                    return process
                except (Died, TooSlow):
                    pass
                except BaseException:
                    self._drop(process)
                    raise
            self._drop(process)
        raise RuntimeError(
            "no grader process starts here; `python -m recipe.spo.rewards.worker 1024 2` says why "
            "(it needs math-verify, and 1 GB of address space: SPO_GRADER_MEMORY_MB)"
        )

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            self._busy.discard(process)
            self._idle.append(process)

    def _start_another(self) -> None:
        """Starts all processes without waiting for them: where one was killed, more will be."""
        with self._lock:
            while len(self._idle) + len(self._busy) < self.size:
                self._idle.insert(0, _Process(self.megabytes, self.seconds))  # those that are ready go first

    def _drop(self, process: _Process) -> None:
        with self._lock:
            self._busy.discard(process)
        process.end()


_shared: GraderPool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> GraderPool:
    """The pool of this process, made when it is first asked for and ended with it."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = GraderPool(
                size=int(os.environ.get("SPO_GRADERS", 2)), megabytes=int(os.environ.get("SPO_GRADER_MEMORY_MB", 1024))
            )
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    """A forked child must not talk to its parent's graders."""
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
