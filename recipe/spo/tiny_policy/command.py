"""The command: fits the tiny policy and puts its folder in place, unless it is there."""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from data_prep.writer import DataError, Row, read_split
from recipe.spo.tiny_policy.fit import MAX_LENGTH, FitOptions, build_model, encode, fit
from recipe.spo.tiny_policy.grading import accuracy
from recipe.spo.tiny_policy.tokenizer import build_tokenizer, split_pieces

# Part of the fingerprint: raise it with every change that makes another policy of the same options.
VERSION = 1
RECORD = "tiny_policy.json"
MAX_PIECES = 512
GRADED_PROBLEMS = 200
USEFUL_ACCURACY = (0.05, 0.4)

HELP = {
    "steps": "most optimiser steps",
    "batch_size": "samples a step",
    "learning_rate": "peak learning rate of AdamW",
    "warmup_steps": "steps until the peak, where it stays",
    "target": "greedy accuracy to stop at, measured on training problems",
    "check_every": "steps between two measurements",
    "seed": "seed of the initial weights and of the order of the samples",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.spo.tiny_policy",
        description="Fits a Llama of 0.8 million parameters to the worked solutions of a small "
        "vocabulary data set (data_prep.arithmetic) and stops while it is right some of the time. "
        "Writes a Hugging Face folder; does nothing where --out holds the same policy already.",
        epilog="The options for fitting and the data make up a fingerprint, kept in "
        f"{RECORD} in the folder. A greedy accuracy outside {USEFUL_ACCURACY[0]:.0%} to "
        f"{USEFUL_ACCURACY[1]:.0%} on validation problems is an error, and nothing is written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, text in (
        ("--data", "folder with train.parquet and validation.parquet"),
        ("--out", "folder to write; an older tiny policy there is replaced"),
    ):
        parser.add_argument(name, type=Path, required=True, default=argparse.SUPPRESS, help=text)
    for field in fields(FitOptions):
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=field.type,
            default=field.default,
            metavar="N",
            help=HELP[field.name],
        )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of torch")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Fits, grades and writes the policy, or says that it is there.

    Raises:
        DataError: The options, the data or the folder to write to will not do, or the policy is
            right too rarely or too often to start from.
    """
    args = parse_args(argv)
    options = FitOptions(**{field.name: getattr(args, field.name) for field in fields(FitOptions)})
    for name in ("steps", "batch_size", "learning_rate", "warmup_steps", "target", "check_every", "threads"):
        value = getattr(args, name)
        if not value > 0:
            raise DataError(f"--{name.replace('_', '-')} must be above 0, not {value}")
    out = args.out.resolve()
    splits = {split: read_split(args.data, split) for split in ("train", "validation")}
    wanted = fingerprint(args.data, splits, options, args.threads)
    if is_current(out, wanted):
        print(f"{out}: already there, made of the same data and options")
        return
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    share = build(out, splits, options, wanted)
    print(f"{out}: right on {share:.1%} of {len(graded(splits))} validation problems, greedily")


def build(out: Path, splits: dict[str, list[Row]], options: FitOptions, wanted: dict[str, Any]) -> float:
    """Fits and grades a policy, puts its folder in place and returns its greedy accuracy.

    Raises:
        DataError: See `main`.
    """
    texts = [text for row in splits["train"] for text in _texts(row)]
    count = len(split_pieces(texts))
    if count > MAX_PIECES:
        raise DataError(
            f"the training problems have {count} different words and signs, this model takes "
            f"{MAX_PIECES}; use data_prep.arithmetic"
        )
    tokenizer = build_tokenizer(texts, MAX_LENGTH)
    samples = encode(tokenizer, splits["train"])
    encode(tokenizer, splits["validation"])  # a bad validation row is told now, not after fitting
    torch.manual_seed(options.seed)
    model = build_model(tokenizer)
    # On training problems: what the policy is measured on afterwards has no part in when it stops.
    fit(model, samples, options, lambda: accuracy(model, tokenizer, splits["train"][:GRADED_PROBLEMS]))
    share = accuracy(model, tokenizer, graded(splits))
    low, high = USEFUL_ACCURACY
    if not low <= share <= high:
        advice = f"more --steps than {options.steps}" if share < low else f"a lower --target than {options.target}"
        raise DataError(
            f"greedy accuracy {share:.1%} is outside {low:.0%} to {high:.0%}, which leaves little to learn from; "
            f"use {advice}"
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        record = {"fingerprint": wanted, "greedy_accuracy": share}
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return share


def graded(splits: dict[str, list[Row]]) -> list[Row]:
    """Picks the validation problems that the accuracy is measured on."""
    return splits["validation"][:GRADED_PROBLEMS]


def fingerprint(data: Path, splits: Iterable[str], options: FitOptions, threads: int) -> dict[str, Any]:
    """Sums up all that a policy is made of."""
    return {
        "version": VERSION,
        "threads": threads,
        **asdict(options),
        "data_sha256": {
            split: hashlib.sha256((data / f"{split}.parquet").read_bytes()).hexdigest() for split in splits
        },
    }


def is_current(out: Path, wanted: dict[str, Any]) -> bool:
    """Tells whether the folder holds the policy wanted.

    Raises:
        DataError: There is something else than a tiny policy, which must not be replaced.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise DataError(f"{out} is not a folder; choose another --out")
    if not (out / RECORD).is_file():
        if any(out.iterdir()):
            raise DataError(f"{out} holds something else than a tiny policy; choose another --out")
        return False
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if isinstance(record, dict) and record.get("fingerprint") == wanted:
        return True
    print(f"{out}: holds a tiny policy made of other data or options; making it anew")
    return False


def _texts(row: Row) -> list[str]:
    return [row["prompt"][-1]["content"], row["extra_info"]["answer"]]
