"""Every run hands its weights to vLLM by a socket of its own.

For: two runs on one machine. verl names that socket after Ray's job id, which is the same one, 01000000, for the first
job of every Ray; and a run without a cluster starts a Ray of its own. Each trainer then takes the other's socket away
before it binds its own: an engine waits for ever, or, which nothing would notice, samples from the other run's weights.
Needless when: verl puts something of the Ray cluster, such as its session, into the name.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recipe.spo.compat.processes import RUN_ID_VARIABLE, SOCKETS

_MODULE = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
_ENDS = ("BucketedWeightSender", "BucketedWeightReceiver")


def apply() -> None:
    """Patch both ends of verl's weight transfer in this process, when they are imported; idempotent.

    They are not imported here: most processes of a run never need them, and they bring all of vLLM.
    """
    module = sys.modules.get(_MODULE)
    if module is not None:
        patch(module)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(importlib.abc.MetaPathFinder):
    """Patches the module whenever it has been executed. It stays: some look for a module without importing it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def patch(module: ModuleType) -> None:
    """Let both ends of the module use the run's own socket; idempotent."""
    for name in _ENDS:
        end = getattr(module, name)
        if not getattr(end.__init__, "_spo_patched", False):
            end.__init__ = _with_own_socket(end.__init__)


def _with_own_socket(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, zmq_handle: str, *args: Any, **kwargs: Any) -> None:
        original(self, own_handle(zmq_handle, os.environ.get(RUN_ID_VARIABLE)), *args, **kwargs)

    __init__._spo_patched = True  # type: ignore[attr-defined]
    return __init__


def own_handle(handle: str, run_id: str | None) -> str:
    """Put the run's id into the name of a socket.

    Args:
        handle: verl's name, such as ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock.
        run_id: of the run; None where nothing of this package has started it: the name stays.

    Raises:
        RuntimeError: verl names its sockets otherwise now, so that this is to be looked at.
    """
    if run_id is None:
        return handle
    prefix = f"ipc://{SOCKETS}"
    if not handle.startswith(prefix):
        raise RuntimeError(f"verl's weight socket is called {handle}, not {prefix}...: mend {__name__}")
    return f"{prefix}{run_id}-{handle.removeprefix(prefix)}"
