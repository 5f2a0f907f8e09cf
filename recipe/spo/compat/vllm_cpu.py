"""What vLLM's own processes need on a CPU: its entry point group is `vllm.general_plugins`."""

from __future__ import annotations

from recipe.spo.compat.machine import is_cpu_machine


def register() -> None:
    """Entry point that vLLM loads in each of its processes; does nothing on a GPU machine."""
    if is_cpu_machine():
        keep_linear_weights()
        wait_without_spinning()


def keep_linear_weights() -> None:
    """Keep the weights of linear layers as loaded, and multiply with `torch.nn.functional.linear`.

    For: weight sync. vLLM 0.27 on a CPU packs each linear weight after loading and drops the
    original, so that the next update of the weights finds no `weight_loader`.
    Needless when: vLLM's CPU worker can reload weights into packed layers.
    """
    import torch
    import vllm.model_executor.layers.utils as layer_utils

    def dispatch_cpu_unquantized_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layer_utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


#: Seconds for which a reader looks again and again before it sleeps: a step of a tiny model, which is
#: over sooner than a sleeper wakes.
BUSY_SECONDS = 0.003


def wait_without_spinning() -> None:
    """Let vLLM's engine sleep while its worker computes, instead of asking again and again.

    For: rate. The engine core reads its worker's answers in a busy loop of up to a second, which on a
    few cores takes one of them away from the worker's own threads. Here it soon waits for the
    writer's notification. One in a few hundred of those is lost (the socket drops what comes too
    fast; vLLM's busy loop hides it), so the shared memory is looked at every few milliseconds too.
    Needless when: vLLM's CPU platform does not spin.
    """
    import functools
    import time

    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    original_init, original_wait = SpinCondition.__init__, SpinCondition.wait
    if getattr(original_wait, "_spo_patched", False):
        return

    @functools.wraps(original_init)
    def __init__(self: SpinCondition, is_reader: bool, context: object, notify_address: str, **_: float) -> None:
        original_init(self, is_reader, context, notify_address, busy_loop_s=BUSY_SECONDS)

    @functools.wraps(original_wait)
    def wait(self: SpinCondition, timeout_ms: int | None = None) -> None:
        patience = 1 if time.monotonic() < self.last_read + 1.0 else 20
        original_wait(self, patience if timeout_ms is None else min(patience, timeout_ms))

    wait._spo_patched = True  # type: ignore[attr-defined]
    SpinCondition.__init__, SpinCondition.wait = __init__, wait
