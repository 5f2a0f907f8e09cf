"""Leave nothing behind: end the processes and shared memory of a run, however it ended.

Ray starts its daemons detached, vLLM's engine is a grandchild, and a Ctrl-C can end the driver
before either. Every process of a run inherits one environment variable with the run's own id; what
still carries it when the driver is done is ended. Nothing else is touched.

Ray kills its actors when the driver is done with them, so that vLLM's engine has no time to remove
its shared memory, whose names say nothing of a run. A thread therefore notes, while the run goes
on, which segments its processes have mapped.
Needless when: ray.shutdown() waits for the processes that its actors started.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

RUN_ID_VARIABLE = "SPO_RUN_ID"
#: Names under /dev/shm that a run creates: verl's weight buckets, multiprocessing, torch, Ray.
_SHM_PATTERNS = ("verl_weights_*", "psm_*", "sem.mp-*", "torch_*", "plasma*")
_SHM_FOLDER = Path("/dev/shm")
#: How the names of verl's weight sockets begin; `weight_sockets` puts the run's id next.
SOCKETS = "/tmp/rl-colocate-zmq-"


def processes_of_run(run_id: str) -> list[psutil.Process]:
    """Processes other than this one that carry the run's id in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(RUN_ID_VARIABLE) == run_id:
                found.append(process)
    return found


def end_processes(run_id: str, patience: float = 5.0) -> int:
    """Terminate, then kill, what is left of a run; returns how many processes that were."""
    left = processes_of_run(run_id)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=patience)
    # A process may have started another one meanwhile, so look again.
    for process in {*alive, *processes_of_run(run_id)}:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=patience)
    return len(left)


def shm_segments() -> set[Path]:
    """Shared memory segments of this machine, of the kinds that a run creates."""
    if not _SHM_FOLDER.is_dir():
        return set()
    return {path for pattern in _SHM_PATTERNS for path in _SHM_FOLDER.glob(pattern)}


def mapped_files(processes: Iterable[psutil.Process]) -> set[str]:
    """Paths of the files that some processes have mapped into their memory."""
    mapped: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            mapped.update(m.path for m in process.memory_maps(grouped=True))
    return mapped


class SegmentWatch(threading.Thread):
    """Notes which new shared memory segments are mapped by the processes of a run.

    Processes are looked at only when there is a segment whose owner is not known yet, and for each
    such segment a few times only: it may be somebody else's.
    """

    LOOKS = 3

    def __init__(self, run_id: str, before: set[Path], seconds: float) -> None:
        """Watch.

        Args:
            run_id: of the run.
            before: segments that were there when it began.
            seconds: between two looks.
        """
        super().__init__(name="segment-watch", daemon=True)
        self.run_id, self.before, self.seconds = run_id, before, seconds
        self.own: set[str] = set()
        self._looks: dict[Path, int] = {}
        self._done = threading.Event()

    def look(self) -> None:
        """Look for new segments, and once for their owners."""
        unknown = {p for p in shm_segments() - self.before if str(p) not in self.own}
        unknown = {path for path in unknown if self._looks.get(path, 0) < self.LOOKS}
        if unknown:
            self._looks.update({path: self._looks.get(path, 0) + 1 for path in unknown})
            self.own |= mapped_files(processes_of_run(self.run_id)) & {str(path) for path in unknown}

    def run(self) -> None:
        """Look until stopped."""
        while not self._done.wait(self.seconds):
            self.look()

    def stop(self) -> set[str]:
        """Stop, look a last time at everything, and give the paths of the run's own segments."""
        self._done.set()
        self.join()
        return self.own | mapped_files(processes_of_run(self.run_id))


def remove_shm_segments(before: set[Path], mapped_by_run: set[str]) -> int:
    """Remove segments that appeared since `before`, that are the run's own, and that nobody has mapped.

    The run's own are those that its processes had mapped, and verl's weight buckets.
    """
    own = {p for p in shm_segments() - before if str(p) in mapped_by_run or p.name.startswith("verl_weights_")}
    mapped = mapped_files(psutil.process_iter()) if own else set()
    removed = 0
    for path in own:
        with contextlib.suppress(OSError):  # somebody else may remove it at the same time
            if str(path) not in mapped and path.stat().st_uid == os.getuid():
                path.unlink()
                removed += 1
    return removed


def remove_sockets(run_id: str) -> None:
    """Remove the weight sockets that a killed process of the run has left on this machine."""
    for name in glob.glob(f"{SOCKETS}{run_id}-*"):
        with contextlib.suppress(OSError):
            os.unlink(name)


@contextlib.contextmanager
def owned_run(watch_seconds: float = 5.0) -> Iterator[str]:
    """Run the body as the owner of every process that it starts, and end them with it.

    SIGTERM and SIGHUP are turned into an orderly exit; a second Ctrl-C does not cut the clean-up
    short. Yields the run's id.

    Args:
        watch_seconds: how often new shared memory is looked for; what lives shorter may stay behind.
    """
    run_id = uuid.uuid4().hex
    outer = os.environ.get(RUN_ID_VARIABLE)
    os.environ[RUN_ID_VARIABLE] = run_id
    segments = shm_segments()
    handlers = {}
    if threading.current_thread() is threading.main_thread():

        def leave(signum: int, frame: object) -> None:
            raise SystemExit(128 + signum)

        handlers = {s: signal.signal(s, leave) for s in (signal.SIGTERM, signal.SIGHUP)}
    watch = SegmentWatch(run_id, segments, watch_seconds)
    watch.start()
    try:
        yield run_id
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) if handlers else None
        try:
            mapped = watch.stop()
            _shut_ray_down()
            end_processes(run_id)
            remove_shm_segments(segments, mapped)
            remove_sockets(run_id)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if handlers:
                signal.signal(signal.SIGINT, interrupt)
            if outer is None:
                os.environ.pop(RUN_ID_VARIABLE, None)
            else:
                os.environ[RUN_ID_VARIABLE] = outer


def _shut_ray_down() -> None:
    import sys

    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        with contextlib.suppress(Exception):  # whatever is left is ended by its run id
            ray.shutdown()
