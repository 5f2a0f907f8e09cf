"""`make smoke-gsm8k`: two SPO-tree steps on real GSM8K questions with a real model, on the CPU.

It shows that the real parts work (chat template, EOS, grading, rows, log-probs), not that it learns.
A model of this size solves about one question in a hundred, and most of its responses do not end in
time. So that every tree has signal all the same, an unfinished response costs a little here
(`algorithm.spo.unfinished_reward`), and the questions with the shortest worked solutions are taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console

from examples.launch import show_failure, train
from recipe.spo.check_dump import DumpMismatch, check_dump
from recipe.spo.dump import TREES, read_dump
from recipe.spo.training_log import curves, read_records

STEPS, TOLERANCE, UNFINISHED_REWARD = 2, 1e-3, -0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", required=True, help="GSM8K as jsonl or parquet, with question and answer")
    parser.add_argument("--model", required=True, type=Path, help="Hugging Face folder, such as SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=Path("outputs/smoke_gsm8k"), help="default: %(default)s")
    parser.add_argument("--questions", type=int, default=1, help="a step (default: %(default)s)")
    parser.add_argument("--response-length", type=int, default=96, help="tokens (default: %(default)s)")
    arguments = parser.parse_args()
    console, out = Console(highlight=False), arguments.out
    shutil.rmtree(out / "dump", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)

    prepared = subprocess.run(
        [sys.executable, "-m", "data_prep.gsm8k", "--source", arguments.source, "--out", str(out / "data")]
    )
    if prepared.returncode != 0:
        return prepared.returncode
    take_short_questions(out, STEPS * arguments.questions)
    console.print(f"\n[bold]SPO-tree 4-4-4, {STEPS} steps[/bold] (full output: {out / 'train.log'})")
    try:
        outcome = train(
            command(arguments, out),
            {"VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl")},
            metrics=out / "metrics.jsonl",
            log=out / "train.log",
            steps=STEPS,
            console=console,
        )
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    if outcome.exit_code != 0:
        show_failure(out / "train.log", outcome.exit_code, console)
        return outcome.exit_code
    return check(arguments.model, out, console, outcome.seconds)


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The training command: the paper's settings, with a small tree, short responses and no reference policy."""
    return [
        *(sys.executable, "-m", "recipe.spo.main_spo"),
        f"data.train_files={out / 'train.parquet'}",
        f"data.val_files={out / 'validation.parquet'}",
        f"data.train_batch_size={arguments.questions}",
        "data.max_prompt_length=256",
        f"data.max_response_length={arguments.response_length}",
        "data.shuffle=False",
        "algorithm.spo.tree.branch_factors=[4,4,4]",
        "algorithm.spo.tree.segment_length=30",
        f"algorithm.spo.unfinished_reward={UNFINISHED_REWARD}",
        f"algorithm.spo.dump_dir={out / 'dump'}",
        "algorithm.spo.dump_sample=null",
        f"actor_rollout_ref.model.path={arguments.model}",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
        "actor_rollout_ref.actor.use_kl_loss=False",
        f"trainer.default_local_dir={out / 'checkpoints'}",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.logger=[console,file]",
    ]


def take_short_questions(out: Path, count: int) -> None:
    """Write the `count` questions with the shortest worked solutions, and a few more to validate on."""
    table = pd.read_parquet(out / "data" / "train.parquet")
    table = table.iloc[table["extra_info"].map(lambda info: len(info["answer"])).argsort(kind="stable")]
    table.head(count).to_parquet(out / "train.parquet")
    table.iloc[count : count + 8].to_parquet(out / "validation.parquet")


def check(model: Path, out: Path, console: Console, seconds: float) -> int:
    """Compare rows with trees, prompts with the chat template, and log-probs with the trainer's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    try:
        report = check_dump(out / "dump", 0.9, frozenset({tokenizer.eos_token_id}), UNFINISHED_REWARD)
    except DumpMismatch as mismatch:
        console.print(f"[red]error:[/red] {mismatch}", markup=True)
        return 1
    questions = list(pd.read_parquet(out / "train.parquet")["prompt"])
    rendered = {
        tuple(tokenizer.apply_chat_template(list(q), add_generation_prompt=True, return_dict=False)) for q in questions
    }
    unknown = [tree["index"] for tree in read_dump(out / "dump", TREES) if tuple(tree["prompt_ids"]) not in rendered]
    totals = curves(read_records(out / "metrics.jsonl")).totals
    result = {**asdict(report), "prompts_off_template": len(unknown), "seconds": round(seconds, 1)}
    result["failed_questions"] = int(totals["failed_questions"])
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(json.dumps(result, indent=2))
    problems = []
    if unknown:
        problems.append(f"prompts {unknown} are not what the chat template renders")
    if report.trees != len(questions) or result["failed_questions"]:
        problems.append(f"{report.trees} trees for {len(questions)} questions")
    if report.rows == 0:
        problems.append("no question was ever solved, so no row was trained")
    if report.finished_leaves == 0:
        problems.append("no response ended with EOS")
    if report.max_log_prob_difference > TOLERANCE:
        problems.append(f"sampler and trainer differ by {report.max_log_prob_difference:.2g} nats a token")
    for problem in problems:
        console.print(f"[red]error:[/red] {problem}", markup=True)
    if not problems:
        console.print("Every row is the segment that was sampled; prompts, EOS and log-probs are right.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
