"""A grader process: reads comparisons from standard input and answers them, one JSON line each.

    python -m recipe.spo.rewards.worker MEGABYTES SECONDS

It is not trusted with anything. It may allocate so many megabytes, write no file, and computes at most
so many seconds at a task: of its own CPU time, so that only a starving machine changes a verdict. It imports
sympy and math-verify, not torch, verl or Ray, and what it says is JSON, so nothing that it sends can run
in the trainer. It ends when its standard input does, which is also when the trainer is killed.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import resource
import signal
import sys
from typing import Any

#: What is parsed at the start, so that the tables of the grammar are there when the first task comes.
WARM_UP = (r"\frac{x}{2}+3\sqrt{2}\pi", r"(x+1)^{2}-\sin(y)", "x<2", r"(0,1)\cup[2,\infty)", r"2\cdot 10^{3}!")
#: Seconds between the alarms after the first, if something swallowed it.
AGAIN = 0.2


class OutOfTime(BaseException):
    """The task took too long; not an Exception, so that `except Exception` lets it through."""


def _ring(*_: Any) -> None:
    raise OutOfTime


def confine(megabytes: int) -> None:
    """Limits what this process can do from now on."""
    size = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    """Has the kernel end this process if it computes much longer, though nobody should watch it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 5
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def _resident() -> int:
    """Bytes in memory now. Not ru_maxrss: it begins with that of the process which started this one."""
    with open("/proc/self/statm", encoding="ascii") as sizes:
        return int(sizes.read().split()[1]) * resource.getpagesize()


def answer(task: dict[str, Any], seconds: float) -> str:
    """Does one task within the time, and says "timeout" or "memory" if it could not."""
    from recipe.spo.rewards import algebra, minerva

    compare = {"math-verify": algebra.compare, "minerva": minerva.compare}[task["grader"]]
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN)
            return compare(task["predicted"], task["gold"])
        except MemoryError:
            return "memory"
        except Exception:  # what sympy makes of nonsense; RecursionError too
            return "wrong"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except OutOfTime:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return "timeout"


def main() -> None:
    """Serves until standard input ends."""
    megabytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's
    signal.signal(signal.SIGPROF, _ring)
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no answer
    for text in WARM_UP:
        answer({"grader": "math-verify", "predicted": [text], "gold": "x+1"}, 60)
    gc.freeze()
    confine(megabytes)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        _limit_cpu(seconds)
        said = answer(json.loads(line), seconds)
        last = said == "memory" or _resident() > megabytes * 2**20 // 2  # the next one starts fresh
        print(json.dumps({"said": said, "last": last}), file=out, flush=True)
        if last:
            return


if __name__ == "__main__":
    main()
