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


def wait_without_spinning() -> None:
    """Let vLLM's engine sleep while its worker computes, instead of asking again and again.

    For: rate. The engine core reads its worker's answers in a busy loop, which on a few cores takes
    one of them away from the worker's own threads. With no busy time it waits for the writer's
    notification, which comes with each message.
    Needless when: vLLM's CPU platform does not spin, or lets the busy time be set.
    """
    import functools

    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    original = SpinCondition.__init__

    @functools.wraps(original)
    def __init__(self: SpinCondition, is_reader: bool, context: object, notify_address: str, **_: float) -> None:
        original(self, is_reader, context, notify_address, busy_loop_s=0.0)

    SpinCondition.__init__ = __init__
