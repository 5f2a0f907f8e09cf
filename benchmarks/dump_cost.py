"""What dumping costs, as a share of a training step: the calls of our workers against a run's recorded steps.

    python -m benchmarks.dump_cost --log <metrics.jsonl of a run> --model <folder with its tokenizer>

Trees of the given shape, of random tokens, go through what a worker does with each question of a
step (the choice, decoding, the record, the file) at the default sampling rate, and with dumping off,
which is the worker's `if`. The seconds of a step are those that the run logged; `spo/dump/seconds`,
where it dumped itself, is shown beside ours. The last line is `ratio: N.NN`: 2 % of a step over what
dumping costs, larger is better, and 1 is the limit.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import yaml

from recipe.spo.advantage import tree_samples
from recipe.spo.parsing import parse_settings
from recipe.spo.recorder import choose, recorder_of
from recipe.spo.rows import select_rows
from recipe.spo.settings import SPOSettings
from recipe.spo.training_log import LogError, history, read_records
from recipe.spo.tree import Node, compute_values

#: Most that dumping may cost, as a share of a step.
LIMIT = 0.02
STEPS = 40


@dataclass(frozen=True, slots=True)
class Run:
    """Means over the training steps of a log."""

    step_seconds: float
    questions: int
    dump_seconds: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds a step by the clock, and of the processor, which another program's load hardly changes."""

    seconds: float
    processor: float


def read_run(log: Path) -> Run:
    """Read a run's log.

    Raises:
        LogError: it has no training step.
    """
    steps = [
        data for data in history(read_records(log)).values() if "spo/questions" in data and "timing_s/step" in data
    ]
    if not steps:
        raise LogError(f"{log} has no training step")
    dumped = [data["spo/dump/seconds"] for data in steps if "spo/dump/seconds" in data]
    return Run(
        # verl times a validation after it closed the step's timer, so it is not in it.
        statistics.mean(data["timing_s/step"] for data in steps),
        round(statistics.mean(data["spo/questions"] for data in steps)),
        statistics.mean(dumped) if dumped else None,
    )


def grow(rng: random.Random, factors: Sequence[int], lengths: Sequence[int], vocabulary: int) -> Node:
    """A graded tree of random tokens, half of the responses right."""

    def under(node: Node, depth: int) -> Node:
        if depth == len(factors):
            node.finished, node.reward, node.verdict = True, float(rng.random() < 0.5), "correct"
        for _ in range(factors[depth] if depth < len(factors) else 0):
            ids = [rng.randrange(vocabulary) for _ in range(lengths[depth])]
            node.children.append(under(Node(ids, [-rng.expovariate(4.0) for _ in ids]), depth + 1))
        return node

    root = under(Node(), 0)
    compute_values(root)
    return root


def cost_of_a_step(
    settings: SPOSettings, tree: Node, prompt_ids: list[int], questions: int, decode: Callable[[Sequence[int]], str]
) -> Cost:
    """What the workers spend on dumping, a mean over the steps of a run that begins with this one."""
    samples = list(tree_samples(tree))
    selection = select_rows(prompt_ids, samples, settings.rollout_mask_threshold)
    recorder = recorder_of(settings, decode)
    seconds = processor = 0.0
    for step in range(1, STEPS + 1):
        prompt = {"uid": f"{step}", "global_steps": step, "index": "0", "reward_model": {"ground_truth": "42"}}
        processor_started, started = time.process_time(), time.perf_counter()
        chosen = choose(step, questions, settings.dump_sample, seed=42) if settings.dump_dir else [False] * questions
        for mine in chosen:
            if recorder is not None:
                recorder.record(prompt, prompt_ids, tree, samples, selection, mine)
        seconds += time.perf_counter() - started
        processor += time.process_time() - processor_started
    return Cost(seconds / STEPS, processor / STEPS)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log", type=Path, required=True, help="metrics.jsonl of a run")
    parser.add_argument("--model", required=True, help="folder with a tokenizer")
    parser.add_argument("--branch-factors", type=int, nargs="+", default=[6, 6, 6], help="default: 6 6 6")
    parser.add_argument("--segment-length", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--last-length", type=int, default=100, help="of the last level (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        run = read_run(arguments.log)
    except LogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    factors = arguments.branch_factors
    lengths = [*[arguments.segment_length] * (len(factors) - 1), arguments.last_length]
    tree = grow(random.Random(0), factors, lengths, len(tokenizer))
    tokens = sum(length * math.prod(factors[: level + 1]) for level, length in enumerate(lengths))
    defaults = yaml.safe_load((files("recipe.spo.config") / "spo_trainer.yaml").read_text())["algorithm"]["spo"]
    off = parse_settings(defaults, 10**6)
    prompt_ids = list(range(min(200, len(tokenizer))))
    with tempfile.TemporaryDirectory() as folder:
        on = replace(off, dump_dir=folder)
        cost = cost_of_a_step(on, tree, prompt_ids, run.questions, tokenizer.decode)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.jsonl"))
    nothing = cost_of_a_step(off, tree, prompt_ids, run.questions, tokenizer.decode)
    sample, written = on.dump_sample, math.ceil(STEPS / on.dump_sample.every_steps) * on.dump_sample.questions
    print(f"a step of {arguments.log}: {run.step_seconds:.2f} s, {run.questions} questions, validation not counted")
    print(f"sampled: {sample.questions} questions of every {sample.every_steps}th step; {tokens} tokens a tree")
    print(f"a dumped tree: {1000 * cost.seconds * STEPS / written:.1f} ms, {size / written / 2**20:.2f} MiB")
    for name, spent, digits in (("on", cost, 2), ("off", nothing, 4)):
        share = spent.seconds / run.step_seconds
        print(
            f"dumping {name}: {1000 * spent.seconds:.{digits}f} ms a step, {share:.{digits + 1}%} of it; "
            f"{1000 * spent.processor:.{digits}f} ms of the processor"
        )
    if run.dump_seconds is not None:
        print(
            f"that run itself: {1000 * run.dump_seconds:.2f} ms a step, {run.dump_seconds / run.step_seconds:.3%} of it"
        )
    print(f"ratio: {LIMIT * run.step_seconds / cost.seconds:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
