"""One batch through verl's engine on one rank, for `benchmarks.shared_prefixes`: time, peak, and what came out."""

from __future__ import annotations

import os
import resource
import socket
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.prefix_batches import make_rows
from benchmarks.verl_actor import actor_worker
from recipe.spo.compat.machine import is_cpu_machine

#: Rows that a CPU warms up on, neighbours in a tree: nothing is compiled there, and a pass of all may take minutes.
WARM_UP_ROWS = 4


def measure(model: str, name: str, side: str, log_probs_file: str, arguments: Namespace) -> dict[str, Any]:
    """One batch on one side, in this process.

    Args:
        model: Hugging Face folder.
        name: of the batch.
        side: `off` or `auto`.
        log_probs_file: where the log-probs of responses go, shape (tokens of responses,), `.npy`.
        arguments: of the command.

    Returns:
        Seconds of `forward` and `update` (wall, and `_cpu` of the processor), each the least of the repeats; `peak` in
        bytes; tokens; `loss` and `grad_norm` of the update.
    """
    import numpy as np
    import torch
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    worker = _build(model, side, arguments)
    engine, gpu = worker.engine, torch.cuda.is_available() and not is_cpu_machine()
    rows = make_rows(name, arguments.trees, arguments.rows, worker.model_config.hf_config.vocab_size, arguments.seed)
    lengths = [len(row.prompt_ids) + len(row.response_ids) for row in rows]
    limit = token_limit(arguments.tokens, lengths)
    settings = {
        "global_batch_size": len(rows),
        "temperature": 1.0,
        "use_dynamic_bsz": True,
        "max_token_len_per_gpu": limit,
        "use_remove_padding": worker.model_config.use_remove_padding,
        "use_fused_kernels": False,
    }

    def run(data: Any, forward_only: bool) -> tuple[float, float, dict]:
        given = data.copy()
        # Entropy as the pass of old log-probs has it.
        tu.assign_non_tensor(given, **settings, calculate_entropy=forward_only)
        mode = {"disable_auto_offload": True} | ({} if forward_only else {"zero_grad_on_exit": False})
        with (
            (engine.eval_mode if forward_only else engine.train_mode)(**mode),
            torch.set_grad_enabled(not forward_only),
        ):
            if not forward_only:
                engine.optimizer_zero_grad()
            _wait(gpu)
            started, cpu = time.perf_counter(), time.process_time()
            output = engine.forward_backward_batch(given, None if forward_only else worker.loss_fn, forward_only)
            _wait(gpu)
            return time.perf_counter() - started, time.process_time() - cpu, output

    data = batch_of(rows)
    small = data if gpu else batch_of(rows[:WARM_UP_ROWS])
    for forward_only in (True, False):  # what is compiled, and the engine's check, are not what is measured
        run(small, forward_only)
    _reset_peak(gpu)
    forward, forward_cpu, output = _least(lambda: run(data, True), arguments.repeats)
    # The policy's own: every ratio is 1, and no gradient is clipped away.
    log_probs = response_from_nested(output["model_output"]["log_probs"], data["response_mask"])
    flat, offsets = log_probs.values().detach().float().cpu(), data["response_mask"].offsets()
    data["old_log_probs"] = torch.nested.nested_tensor_from_jagged(flat, offsets)
    data["ref_log_prob"] = torch.nested.nested_tensor_from_jagged(flat * 1.01, offsets)
    update, update_cpu, output = _least(lambda: run(data, False), arguments.repeats)
    peak = _peak(gpu)
    np.save(log_probs_file, flat.numpy())
    computed, plain = (
        float(output["metrics"][count].aggregate()) if count in output["metrics"] else 0.0
        for count in ("spo_share_update_computed", "spo_share_update_plain")
    )
    return {
        "rows": len(rows),
        "tokens": sum(lengths),
        "distinct": _distinct(rows),
        "limit": limit,
        "computed": computed or sum(lengths),
        "plain": bool(plain > 0 or side == "off"),
        "forward": forward,
        "update": update,
        "forward_cpu": forward_cpu,
        "update_cpu": update_cpu,
        "peak": peak,
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "gpu": gpu,
        "dtype": str(engine._autocast_dtype).removeprefix("torch."),
        "loss": float(sum(output["loss"])),
        "grad_norm": _gradient_norm(engine.module),
    }


def token_limit(asked: int, lengths: Sequence[int]) -> int:
    """Most tokens of a micro-batch: as asked for, or the longest row's."""
    return max(asked, *lengths)


def batch_of(rows: Sequence[Any]) -> Any:
    """verl's batch of rows: every field a jagged tensor, as the TransferQueue gives it, also where all are as long.

    Log-probs of the old policy and of the reference are the rollout's, until somebody has better ones.
    """
    import torch
    from tensordict import NonTensorStack, TensorDict

    from recipe.spo.rollout.worker import row_fields

    fields = [row_fields(row) for row in rows]
    columns = {name: [each[name] for each in fields] for name in fields[0]}
    data = TensorDict(
        {
            name: torch.nested.as_nested_tensor(column, layout=torch.jagged)
            if isinstance(column[0], torch.Tensor)
            else NonTensorStack(*column)
            for name, column in columns.items()
        },
        batch_size=[len(rows)],
    )
    data["advantages"] = data["spo_advantages"]
    data["old_log_probs"] = data["ref_log_prob"] = data["rollout_log_probs"]
    return data


def _build(model: str, side: str, arguments: Namespace) -> Any:
    """verl's worker with its engine and loss."""
    import verl  # noqa: F401  # loads the plug-in, and with it the CPU platform
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass

    overrides = [
        f"actor_rollout_ref.model.path={model}",
        "+actor_rollout_ref.model.load_tokenizer=False",
        f"actor_rollout_ref.model.enable_gradient_checkpointing={arguments.checkpointing}",
        f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={arguments.tokens}",
    ]
    if arguments.attention:
        overrides.append(f"++actor_rollout_ref.model.override_config.attn_implementation={arguments.attention}")
    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose("spo_trainer", overrides=overrides)
    if side != "off":  # without it the engine is verl's own
        from recipe.spo.compat.shared_model import share_prefixes

        share_prefixes(config, side)
    OmegaConf.resolve(config)
    return actor_worker(config, omega_conf_to_dataclass(config.actor_rollout_ref.actor))


def _least(once: Callable[[], tuple[float, float, dict]], repeats: int) -> tuple[float, float, dict]:
    """Of several passes the least time, wall and processor's; what the last one gave."""
    times = []
    for _ in range(repeats):
        *taken, output = once()
        times.append(taken)
    wall, cpu = (min(each) for each in zip(*times, strict=True))
    return wall, cpu, output


def _wait(gpu: bool) -> None:
    import torch

    if gpu:
        torch.cuda.synchronize()


def _reset_peak(gpu: bool) -> None:
    import torch

    if gpu:
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # then the peak is that of the whole process


def _peak(gpu: bool) -> int:
    """Bytes since the reset: what torch allocated on a GPU, resident memory on a CPU."""
    import torch

    if gpu:
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gradient_norm(module: Any) -> float:
    norms = [parameter.grad.norm() for parameter in module.parameters() if parameter.grad is not None]
    return sum(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) ** 2 for norm in norms) ** 0.5


def _distinct(rows: Sequence[Any]) -> int:
    import numpy as np

    from recipe.spo.packing import sort_rows

    return sort_rows([np.array(row.prompt_ids + row.response_ids) for row in rows]).distinct_tokens


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
