"""Check a run's trained rows against the trees that were sampled: `python -m recipe.spo.check_dump DIR`.

Written apart from the code that made the rows: values are recomputed by recursion over the dumped
trees, and every row must be exactly what its segment says.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.spo.dump import ROWS, TREES, read_dump


class DumpMismatch(AssertionError):
    """A row is not what the sampled tree says it should be."""


@dataclass(slots=True)
class DumpReport:
    """What was compared; log-probability differences are in nats."""

    trees: int = 0
    segments: int = 0
    rows: int = 0
    padding_rows: int = 0
    finished_leaves: int = 0
    trained_tokens: int = 0
    steps: int = 0
    max_log_prob_difference: float = 0.0
    max_log_prob_difference_after_sync: float = 0.0


def value_of(node: dict[str, Any]) -> float:
    """V(leaf) = reward, V(node) = mean of its children."""
    children = [value_of(child) for child in node["children"]]
    return sum(children) / len(children) if children else node["reward"]


def edges(
    node: dict[str, Any], path: str = "", prefix: tuple[int, ...] = ()
) -> Iterator[tuple[str, tuple, dict, float]]:
    """Every segment of a dumped tree: its path, the response before it, its node, its advantage."""
    parent_value = value_of(node)
    for index, child in enumerate(node["children"]):
        child_path = f"{path}.{index}" if path else str(index)
        yield child_path, prefix, child, value_of(child) - parent_value
        yield from edges(child, child_path, (*prefix, *child["token_ids"]))


def check_dump(
    folder: Path, mask_threshold: float | None, eos_ids: frozenset[int], unfinished_reward: float = 0.0
) -> DumpReport:
    """Compare rows with trees.

    Args:
        folder: `algorithm.spo.dump_dir` of a run.
        mask_threshold: `algorithm.spo.mask_threshold` of that run.
        eos_ids: token ids that end a response.
        unfinished_reward: `algorithm.spo.unfinished_reward` of that run.

    Raises:
        DumpMismatch: naming the row or segment and the field.
    """
    report = DumpReport()
    expected: dict[tuple[str, str], tuple[list[int], dict, list[int], float]] = {}
    for tree in read_dump(folder, TREES):
        report.trees += 1
        for path, prefix, node, advantage in edges(tree["root"]):
            report.segments += 1
            where = f"segment {path} of prompt {tree['index']} in step {tree['step']}"
            _check_ending(where, node, eos_ids, unfinished_reward)
            report.finished_leaves += node["finished"]
            mask = [int(mask_threshold is None or math.exp(p) < mask_threshold) for p in node["log_probs"]]
            if abs(advantage) > 1e-9 and any(mask):
                expected[tree["uid"], path] = ([*tree["prompt_ids"], *prefix], node, mask, advantage)
    steps = set()
    for row in read_dump(folder, ROWS):
        if row["is_padding"]:
            report.padding_rows += 1
            _check(row, "padding", not any(row["loss_mask"]) and not any(row["advantages"]), "a padding row trains")
            continue
        steps.add(row["step"])
        found = expected.pop((row["key"].split("_")[0], row["path"]), None)
        _check(row, "key", found is not None, "no such segment, or it was trained twice")
        _check_row(row, *found, report)
    report.steps = len(steps)
    if expected:
        uid, path = next(iter(expected))
        raise DumpMismatch(f"{len(expected)} segments with signal were never trained, such as {path} of {uid}")
    return report


def _check_row(
    row: dict, context: list[int], node: dict, mask: list[int], advantage: float, report: DumpReport
) -> None:
    _check(row, "prompts", row["prompts"] == context, "context is not prompt + path")
    _check(row, "responses", row["responses"] == node["token_ids"], "tokens are not the sampled ones")
    _check(row, "response_mask", row["response_mask"] == mask, "mask is not p < threshold")
    _check(row, "loss_mask", row["loss_mask"] == mask, "loss_mask differs from response_mask")
    wanted = [advantage * m for m in mask]
    _check(row, "advantages", _close(row["advantages"], wanted, 1e-6), f"not {advantage} on every trained token")
    _check(row, "rm_scores", _close([sum(row["rm_scores"])], [value_of(node)], 1e-6), "not the segment's value")
    _check(row, "rollout_log_probs", _close(row["rollout_log_probs"], node["log_probs"], 1e-6), "not the sampled ones")
    difference = max(abs(a - b) for a, b in zip(row["rollout_log_probs"], row["old_log_probs"], strict=True))
    report.max_log_prob_difference = max(report.max_log_prob_difference, difference)
    if row["step"] > 1:
        report.max_log_prob_difference_after_sync = max(report.max_log_prob_difference_after_sync, difference)
    report.rows += 1
    report.trained_tokens += sum(mask)


def _check_ending(where: str, node: dict, eos_ids: frozenset[int], unfinished_reward: float) -> None:
    ids = node["token_ids"]
    if len(ids) != len(node["log_probs"]):
        raise DumpMismatch(f"{where}: {len(ids)} tokens and {len(node['log_probs'])} log-probabilities")
    if any(token in eos_ids for token in ids[:-1]):
        raise DumpMismatch(f"{where}: EOS before the last token")
    if ids[-1] in eos_ids and not node["finished"]:
        raise DumpMismatch(f"{where}: ends with EOS but counts as unfinished")
    if node["finished"] and node["children"]:
        raise DumpMismatch(f"{where}: finished, and has children")
    if not node["finished"] and not node["children"] and node["reward"] != unfinished_reward:
        raise DumpMismatch(f"{where}: unfinished, but earned {node['reward']}")


def _check(row: dict, field: str, good: bool, problem: str) -> None:
    if not good:
        raise DumpMismatch(f"row {row['key']} (segment {row['path']}, step {row['step']}), field {field}: {problem}")


def _close(found: list[float], wanted: list[float], tolerance: float) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="algorithm.spo.dump_dir of the run")
    parser.add_argument("--mask-threshold", type=float, default=0.9, help="of the run (default: %(default)s)")
    parser.add_argument("--no-mask", action="store_true", help="the run had mask_threshold=null")
    parser.add_argument("--unfinished-reward", type=float, default=0.0, help="of the run (default: %(default)s)")
    parser.add_argument("--eos", type=int, nargs="+", required=True, help="token ids that end a response")
    arguments = parser.parse_args()
    if not any(arguments.folder.glob(f"{TREES}-*.jsonl")):
        sys.exit(f"error: {arguments.folder} holds no dumped trees; run with algorithm.spo.dump_dir={arguments.folder}")
    try:
        report = check_dump(
            arguments.folder,
            None if arguments.no_mask else arguments.mask_threshold,
            frozenset(arguments.eos),
            arguments.unfinished_reward,
        )
    except DumpMismatch as mismatch:
        sys.exit(f"error: {mismatch}")
    print(json.dumps(asdict(report), indent=2))


if __name__ == "__main__":
    main()
