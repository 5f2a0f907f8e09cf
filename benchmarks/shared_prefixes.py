"""Training with shared prefixes computed once against verl's own rows: time and peak memory, same batch, same run.

    python -m benchmarks.shared_prefixes --model <folder>            (a Llama or Qwen model, such as SmolLM2-135M)
    python -m benchmarks.shared_prefixes --random qwen-1.5b --batches math    (random weights)

Both sides are verl's FSDP2 engine on one rank, with its `ppo_loss` and micro-batches of at most `--tokens` tokens: its
own path (`off`: padded rows on a CPU; on a GPU packed ones, with flash-attention if `--attention flash_attention_2`),
and `share_prefixes=auto`. Each measurement is a process of its own, the sides in turn, so that peaks are its own: on a
CPU resident memory, on a GPU what torch allocates. The last line is `ratio: N.NN`, the rows' time of forward and
backward over ours for the GSM8K-shaped batch (the first one, if that is not among them), larger is better.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.prefix_batches import BATCHES, make_rows
from benchmarks.verl_actor import actor_worker

SIDES = ("off", "auto")
#: Architecture, hidden size, width of the MLP, layers, heads, key heads, vocabulary.
RANDOM = {
    "llama-tiny": ("llama", 256, 704, 6, 8, 4, 8_192),
    "qwen-tiny": ("qwen2", 256, 704, 6, 8, 4, 8_192),
    "llama-135m": ("llama", 576, 1536, 30, 9, 3, 49_152),
    "qwen-0.5b": ("qwen2", 896, 4864, 24, 14, 2, 151_936),
    "qwen-1.5b": ("qwen2", 1536, 8960, 28, 12, 2, 151_936),
}


def save_random(name: str, folder: str) -> None:
    """A model with random weights, where verl finds it."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    kind, hidden, inner, layers, heads, key_heads, vocabulary = RANDOM[name]
    config = (LlamaConfig if kind == "llama" else Qwen2Config)(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        max_position_embeddings=8_192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def build(model: str, side: str, arguments: argparse.Namespace) -> Any:
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
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    return actor_worker(config, actor)


def batch_of(rows: list, tokens: int, packed: bool) -> Any:
    """verl's batch of rows."""
    import torch
    from verl.utils import tensordict_utils as tu

    from recipe.spo.rollout.worker import row_fields

    data = tu.list_of_dict_to_tensordict([row_fields(row) for row in rows])
    data["advantages"] = data["spo_advantages"]
    data["old_log_probs"] = data["rollout_log_probs"]
    data["ref_log_prob"] = torch.nested.nested_tensor_from_jagged(
        data["rollout_log_probs"].values() * 1.1, data["rollout_log_probs"].offsets()
    )
    tu.assign_non_tensor(
        data,
        global_batch_size=len(rows),
        temperature=1.0,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=tokens,
        use_remove_padding=packed,
        use_fused_kernels=False,
    )
    return data


def measure(model: str, name: str, side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One batch on one side, in this process."""
    import torch
    from verl.utils import tensordict_utils as tu

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    worker = build(model, side, arguments)
    engine, gpu = worker.engine, torch.cuda.is_available() and not _on_cpu()
    vocabulary = worker.model_config.hf_config.vocab_size
    rows = make_rows(name, arguments.trees, arguments.rows, vocabulary, arguments.seed)
    packed = worker.model_config.use_remove_padding

    def run(chosen: list, forward_only: bool) -> tuple[float, float, dict]:
        data = batch_of(chosen, arguments.tokens, packed)
        if forward_only:
            tu.assign_non_tensor(data, calculate_entropy=True)  # as the pass of old log-probs does
        mode = engine.eval_mode if forward_only else engine.train_mode
        with mode(disable_auto_offload=True), torch.set_grad_enabled(not forward_only):
            if gpu:
                torch.cuda.synchronize()
            started, cpu = time.perf_counter(), time.process_time()
            output = engine.forward_backward_batch(data, None if forward_only else worker.loss_fn, forward_only)
            if gpu:
                torch.cuda.synchronize()
            return time.perf_counter() - started, time.process_time() - cpu, output

    small = make_rows(name, 1, min(8, len(rows)), vocabulary, arguments.seed + 1)
    for forward_only in (True, False):  # warm-up, compilation, and the check of the first pass
        run(small, forward_only)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    forward, forward_cpu, _ = run(rows, True)
    update, update_cpu, output = run(rows, False)
    computed, plain = (
        output["metrics"][name].aggregate() if name in output["metrics"] else 0.0
        for name in ("spo_share_update_computed", "spo_share_update_plain")
    )
    tokens = sum(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": len(rows),
        "tokens": tokens,
        "distinct": _distinct(rows),
        "computed": computed or tokens,
        "plain": plain > 0 or side == "off",
        "forward": forward,
        "update": update,
        "forward_cpu": forward_cpu,
        "update_cpu": update_cpu,
        "peak": peak,
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "loss": sum(output["loss"]),
    }


def _distinct(rows: list) -> int:
    import numpy as np

    from recipe.spo.packing import sort_rows

    return sort_rows([np.array(row.prompt_ids + row.response_ids) for row in rows]).distinct_tokens


def _on_cpu() -> bool:
    from recipe.spo.compat.machine import is_cpu_machine

    return is_cpu_machine()


def in_a_child(model: str, name: str, side: str) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.shared_prefixes", *sys.argv[1:], "--child", model, name, side]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{name}, {side}: {done.stderr[-3000:]}")
    return json.loads(lines[0].removeprefix("MEASURED "))


def report(name: str, measured: dict[str, list[dict[str, Any]]]) -> float:
    """Print one batch; gives the ratio of the update."""
    off, ours = measured["off"][0], measured["auto"][0]
    if abs(off["loss"] - ours["loss"]) > 1e-3 * max(1.0, abs(off["loss"])):
        raise RuntimeError(f"{name}: the losses differ, {off['loss']} and {ours['loss']}")
    print(
        f"{name}: {ours['rows']} rows, {ours['tokens']:,} tokens, {ours['tokens'] / ours['distinct']:.2f} times the "
        f"distinct ones; computed {ours['computed']:,.0f}{' (one by one)' if ours['plain'] else ''}; {ours['device']}"
    )

    def median(side: str, what: str) -> float:
        return statistics.median(each[what] for each in measured[side])

    for what in ("forward", "update"):
        times = [median(side, what) for side in SIDES]
        cpu = [median(side, f"{what}_cpu") for side in SIDES]
        print(
            f"  {what:8} rows {times[0]:8.2f} s  shared {times[1]:8.2f} s  ratio {times[0] / times[1]:.2f}"
            f"   (of processor time {cpu[0] / cpu[1]:.2f})"
        )
    peaks = [median(side, "peak") / 2**30 for side in SIDES]
    print(f"  peak     rows {peaks[0]:8.2f} GiB shared {peaks[1]:8.2f} GiB", flush=True)
    return median("off", "update") / median("auto", "update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="Hugging Face folder; its weights are real")
    parser.add_argument("--random", choices=RANDOM, help="a model with random weights instead")
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--trees", type=int, default=1, help="questions a batch (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="most rows, chosen at random (default: all with an advantage)")
    parser.add_argument("--tokens", type=int, default=2048, help="most tokens of a micro-batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds, each side in turn (default: %(default)s)")
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--attention", help="attn_implementation of the rows' side, such as flash_attention_2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if bool(arguments.model) == bool(arguments.random):
        parser.error("give --model FOLDER or --random NAME")
    if _on_cpu():
        from recipe.spo.compat.verl_cpu import prepare_environment

        prepare_environment()
    if arguments.child:
        print("MEASURED " + json.dumps(measure(*arguments.child, arguments)), flush=True)
        return
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.random:
            save_random(arguments.random, folder)
        model = arguments.model or folder
        for name in arguments.batches:
            measured: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
            for _ in range(arguments.rounds):
                for side in SIDES:
                    measured[side].append(in_a_child(model, name, side))
            ratios[name] = report(name, measured)
    print(f"ratio: {ratios.get('gsm8k', ratios[arguments.batches[0]]):.2f}")


if __name__ == "__main__":
    main()
