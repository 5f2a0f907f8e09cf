"""Training with shared prefixes computed once against verl's own rows: time and peak memory, same batch, same run.

    python -m benchmarks.shared_prefixes --model <folder>            (a Llama or Qwen model, such as SmolLM2-135M)
    python -m benchmarks.shared_prefixes --random qwen-1.5b --batches math    (random weights)

Both sides are verl's FSDP2 engine on one rank, with its `ppo_loss` and micro-batches of at most `--tokens` tokens, or
as many as the longest row has: its own path (`off`: padded rows on a CPU; on a GPU packed ones, with flash-attention if
`--attention flash_attention_2`), and `share_prefixes=auto`. Each measurement is a process of its own, the sides in
turn, so that peaks are its own: on a CPU resident memory, on a GPU what torch allocates. A process warms up (a GPU on
the whole batch, since it compiles), then takes the least of `--repeats` passes; several `--rounds` give their median.
Log-probs, loss and gradient norm of both sides must agree.

The last line is `ratio: N.NN`, the rows' time of forward and backward over ours for the GSM8K-shaped batch (the first
one, if that is not among them), larger is better.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prefix_batches import BATCHES
from benchmarks.prefix_measure import measure
from recipe.spo.compat.machine import is_cpu_machine

SIDES = ("off", "auto")
#: What both sides may differ by: log-probs (largest of all in float32, else on average), and loss and gradient norm,
#: relative.
FLOAT32_TOLERANCE, HALF_TOLERANCE = (1e-3, 1e-3), (0.05, 0.05)
#: Wall time and processor time that tell ratios this far apart were taken on a busy machine.
BUSY = 0.15
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


def in_a_child(model: str, name: str, side: str, folder: str) -> dict[str, Any]:
    """`measure` in a process of its own; with `log_probs`, shape (tokens of responses,)."""
    file = Path(folder, f"{name}_{side}.npy")
    command = [sys.executable, "-m", "benchmarks.shared_prefixes", *sys.argv[1:]]
    done = subprocess.run([*command, "--child", model, name, side, str(file)], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{name}, {side}: {done.stderr[-3000:]}")
    return json.loads(lines[0].removeprefix("MEASURED ")) | {"log_probs": np.load(file)}


def agreement(name: str, off: dict[str, Any], ours: dict[str, Any]) -> str:
    """What both sides differ by.

    Raises:
        RuntimeError: by more than rounding; then there is nothing to compare the time of.
    """
    single = off["dtype"] == "float32"
    of_log_probs, relative = FLOAT32_TOLERANCE if single else HALF_TOLERANCE
    distance = np.abs(off["log_probs"] - ours["log_probs"])
    found = {"log-probs": float(distance.max() if single else distance.mean())}
    found |= {what: abs(off[what] - ours[what]) / max(abs(off[what]), 1e-9) for what in ("loss", "grad_norm")}
    said = ", ".join(f"{what} by {value:.1e}" for what, value in found.items())
    # Not "greater than": a NaN is no agreement either.
    if not all(value <= (of_log_probs if what == "log-probs" else relative) for what, value in found.items()):
        raise RuntimeError(f"{name}: both sides differ ({said}; {off['dtype']}), so their times say nothing")
    return said


def report(name: str, measured: dict[str, list[dict[str, Any]]]) -> float:
    """Print one batch; gives the ratio of the update."""
    off, ours = measured["off"][0], measured["auto"][0]
    said = [agreement(name, *pair) for pair in zip(*measured.values(), strict=True)][0]
    print(
        f"{name}: {ours['rows']} rows, {ours['tokens']:,} tokens, {ours['tokens'] / ours['distinct']:.2f} times the "
        f"distinct ones; computed {ours['computed']:,.0f}{' (one by one)' if ours['plain'] else ''}; micro-batches of "
        f"at most {ours['limit']:,}; {ours['device']}, {ours['dtype']}"
    )

    def median(side: str, what: str) -> float:
        return statistics.median(each[what] for each in measured[side])

    for what in ("forward", "update"):
        times = [median(side, what) for side in SIDES]
        cpu = [median(side, f"{what}_cpu") for side in SIDES]
        ratio, of_cpu = times[0] / times[1], cpu[0] / cpu[1]
        print(
            f"  {what:8} rows {times[0]:8.2f} s  shared {times[1]:8.2f} s  ratio {ratio:.2f}"
            f"   (of processor time {of_cpu:.2f})"
        )
        if not ours["gpu"] and abs(ratio / of_cpu - 1) > BUSY:
            print("  warning: wall and processor time disagree, so the machine was busy; trust the latter, or repeat")
    peaks = [median(side, "peak") / 2**30 for side in SIDES]
    print(f"  peak     rows {peaks[0]:8.2f} GiB shared {peaks[1]:8.2f} GiB")
    print(f"  differ   {said}; gradient norm {off['grad_norm']:.4g}", flush=True)
    return median("off", "update") / median("auto", "update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="Hugging Face folder; its weights are real")
    parser.add_argument("--random", choices=RANDOM, help="a model with random weights instead")
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--trees", type=int, default=1, help="questions a batch (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="most rows, chosen at random (default: all with an advantage)")
    parser.add_argument("--tokens", type=int, default=2048, help="most tokens of a micro-batch (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="passes a process, the least counts (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="rounds, each side in turn (default: %(default)s)")
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--attention", help="attn_implementation of the rows' side, such as flash_attention_2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if bool(arguments.model) == bool(arguments.random):
        parser.error("give --model FOLDER or --random NAME")
    if arguments.model and not Path(arguments.model, "config.json").is_file():
        parser.error(f"--model {arguments.model}: no model there, it has no config.json")
    for name in ("trees", "rows", "tokens", "repeats", "rounds"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            parser.error(f"--{name} is {given}: at least 1")
    if is_cpu_machine():
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
                    measured[side].append(in_a_child(model, name, side, folder))
            ratios[name] = report(name, measured)
    print(f"ratio: {ratios.get('gsm8k', ratios[arguments.batches[0]]):.2f}")


if __name__ == "__main__":
    main()
