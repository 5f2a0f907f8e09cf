"""Check a run's trained rows against what was sampled: `python -m recipe.spo.check_dump DIR`.

Written apart from the code that made the rows: values are recomputed from the dumped trees (by
recursion, mean baseline) and chains (mean of each cut's continuations, differences), and every row
must be exactly what its segments say.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.spo.dump import CHAINS, ROWS, TREES, read_dump


class DumpMismatch(AssertionError):
    """A row is not what the sampled tree or chain says it should be."""


@dataclass(slots=True)
class DumpReport:
    """What was compared; log-probability differences are in nats, and of rows of the same step."""

    trees: int = 0
    chains: int = 0
    segments: int = 0
    continuations: int = 0
    rows: int = 0
    rows_of_earlier_steps: int = 0
    untrained_rows: int = 0
    padding_rows: int = 0
    finished_leaves: int = 0
    trained_tokens: int = 0
    steps: int = 0
    max_log_prob_difference: float = 0.0
    max_log_prob_difference_after_sync: float = 0.0


@dataclass(slots=True, frozen=True)
class Expected:
    """What a row must hold."""

    context: list[int]
    token_ids: list[int]
    log_probs: list[float]
    mask: list[int]
    advantages: list[float]
    score: float
    step: int


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


def expected_of_tree(tree: Mapping[str, Any], mask_threshold: float | None) -> Iterator[tuple[str, Expected]]:
    """Every row that a dumped tree must give, with its path: segments with signal and a trained token."""
    for path, prefix, node, advantage in edges(tree["root"]):
        mask = mask_of(node, mask_threshold)
        if abs(advantage) > 1e-9 and any(mask):
            yield (
                path,
                Expected(
                    context=[*tree["prompt_ids"], *prefix],
                    token_ids=node["token_ids"],
                    log_probs=node["log_probs"],
                    mask=mask,
                    advantages=[advantage * m for m in mask],
                    score=value_of(node),
                    step=tree["step"],
                ),
            )


def expected_of_chain(chain: Mapping[str, Any], mask_threshold: float | None) -> Iterator[tuple[str, Expected]]:
    """Every row that a dumped chain must give, with its path: responses with a trained token that has credit."""
    value = {
        tuple(entry["state"]): sum(sample["reward"] for sample in entry["samples"]) / len(entry["samples"])
        for entry in chain["continuations"]
    }
    for index, trajectory in enumerate(chain["trajectories"]):
        node, cuts = trajectory["response"], trajectory["cuts"]
        mask, advantages = mask_of(node, mask_threshold), []
        for position in range(len(node["token_ids"])):
            begun = [cut for cut in cuts if cut <= position]
            to_come = [cut for cut in cuts if cut > position]
            after = value[tuple(node["token_ids"][: to_come[0]])] if to_come else node["reward"]
            advantages.append((after - value[tuple(node["token_ids"][: begun[-1]])]) * mask[position] if begun else 0.0)
        if any(abs(advantage) > 1e-9 for advantage in advantages):
            yield (
                str(index),
                Expected(
                    context=chain["prompt_ids"],
                    token_ids=node["token_ids"],
                    log_probs=node["log_probs"],
                    mask=mask,
                    advantages=advantages,
                    score=node["reward"],
                    step=chain["step"],
                ),
            )


def mask_of(node: Mapping[str, Any], threshold: float | None) -> list[int]:
    """1 for a token with p < threshold."""
    return [int(threshold is None or math.exp(p) < threshold) for p in node["log_probs"]]


def check_dump(
    folder: Path,
    mask_threshold: float | None,
    eos_ids: frozenset[int],
    unfinished_reward: float = 0.0,
    replay: bool = False,
) -> DumpReport:
    """Compare rows with trees and chains.

    Args:
        folder: `algorithm.spo.dump_dir` of a run with `dump_sample=null`.
        mask_threshold: `algorithm.spo.mask_threshold` of that run.
        eos_ids: token ids that end a response.
        unfinished_reward: `algorithm.spo.unfinished_reward` of that run.
        replay: the run trained some of its rows only, and some of them in later steps.

    Raises:
        DumpMismatch: naming the row or segment and the field.
    """
    report = DumpReport()
    expected: dict[tuple[str, str], Expected] = {}
    for tree in read_dump(folder, TREES):
        report.trees += 1
        for path, _, node, _ in edges(tree["root"]):
            report.segments += 1
            report.finished_leaves += node["finished"]
            where = f"segment {path} of prompt {tree['index']} in step {tree['step']}"
            _check_ending(where, node, eos_ids, unfinished_reward)
        expected.update({(tree["uid"], path): row for path, row in expected_of_tree(tree, mask_threshold)})
    for chain in read_dump(folder, CHAINS):
        report.chains += 1
        _check_chain(chain, eos_ids, unfinished_reward, report)
        expected.update({(chain["uid"], path): row for path, row in expected_of_chain(chain, mask_threshold)})
    steps = set()
    for row in read_dump(folder, ROWS):
        if row["is_padding"]:
            report.padding_rows += 1
            _check(row, "padding", not any(row["loss_mask"]) and not any(row["advantages"]), "a padding row trains")
            continue
        steps.add(row["step"])
        found = expected.pop((row["key"].split("_")[0], row["path"]), None)
        _check(row, "key", found is not None, "no such segment, or it was trained twice")
        _check(row, "step", replay or row["step"] == found.step, "sampled in another step")
        _check_row(row, found, report)
    report.steps = len(steps)
    report.untrained_rows = len(expected)
    if expected and not replay:
        uid, path = next(iter(expected))
        raise DumpMismatch(f"{len(expected)} segments with signal were never trained, such as {path} of {uid}")
    return report


def _check_chain(
    chain: Mapping[str, Any], eos_ids: frozenset[int], unfinished_reward: float, report: DumpReport
) -> None:
    where = f"prompt {chain['index']} in step {chain['step']}"
    states = [tuple(entry["state"]) for entry in chain["continuations"]]
    asked = {tuple(t["response"]["token_ids"][:cut]) for t in chain["trajectories"] for cut in t["cuts"]}
    if len(states) != len(set(states)) or set(states) != asked:
        raise DumpMismatch(f"{where}: the continued states are not the distinct cuts of the responses")
    if len({len(entry["samples"]) for entry in chain["continuations"]}) > 1:
        raise DumpMismatch(f"{where}: states have different numbers of continuations")
    samples = [sample for entry in chain["continuations"] for sample in entry["samples"]]
    for node in [t["response"] for t in chain["trajectories"]] + samples:
        report.finished_leaves += node["finished"]
        _check_ending(f"a response of {where}", node, eos_ids, unfinished_reward)
    report.segments += sum(len(t["cuts"]) for t in chain["trajectories"])
    report.continuations += len(samples)


def _check_row(row: dict, wanted: Expected, report: DumpReport) -> None:
    _check(row, "prompts", row["prompts"] == wanted.context, "context is not prompt + path")
    _check(row, "responses", row["responses"] == wanted.token_ids, "tokens are not the sampled ones")
    _check(row, "response_mask", row["response_mask"] == wanted.mask, "mask is not p < threshold")
    _check(row, "loss_mask", row["loss_mask"] == wanted.mask, "loss_mask differs from response_mask")
    _check(row, "advantages", _close(row["advantages"], wanted.advantages, 1e-6), f"not {wanted.advantages}")
    _check(row, "rm_scores", _close([sum(row["rm_scores"])], [wanted.score], 1e-6), "not the value after the tokens")
    sampled = row["rollout_log_probs"]
    _check(row, "rollout_log_probs", _close(sampled, wanted.log_probs, 1e-6), "not the sampled ones")
    difference = max(abs(a - b) for a, b in zip(sampled, row["old_log_probs"], strict=True))
    if row["step"] != wanted.step:
        report.rows_of_earlier_steps += 1
        _check(row, "old_log_probs", difference == 0.0, "not those of the policy that sampled the row")
    else:
        report.max_log_prob_difference = max(report.max_log_prob_difference, difference)
        if row["step"] > 1:
            report.max_log_prob_difference_after_sync = max(report.max_log_prob_difference_after_sync, difference)
    report.rows += 1
    report.trained_tokens += sum(wanted.mask)


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
    parser.add_argument("folder", type=Path, help="algorithm.spo.dump_dir of the run, which had dump_sample=null")
    parser.add_argument("--mask-threshold", type=float, default=0.9, help="of the run (default: %(default)s)")
    parser.add_argument("--no-mask", action="store_true", help="the run had mask_threshold=null")
    parser.add_argument("--unfinished-reward", type=float, default=0.0, help="of the run (default: %(default)s)")
    parser.add_argument("--replay", action="store_true", help="the run had algorithm.spo.replay limits")
    parser.add_argument("--eos", type=int, nargs="+", required=True, help="token ids that end a response")
    arguments = parser.parse_args()
    if not any(file for kind in (TREES, CHAINS) for file in arguments.folder.glob(f"{kind}-*.jsonl")):
        sys.exit(
            f"error: {arguments.folder} holds no rollouts; run with algorithm.spo.dump_dir={arguments.folder} "
            "algorithm.spo.dump_sample=null"
        )
    try:
        report = check_dump(
            arguments.folder,
            None if arguments.no_mask else arguments.mask_threshold,
            frozenset(arguments.eos),
            arguments.unfinished_reward,
            arguments.replay,
        )
    except DumpMismatch as mismatch:
        sys.exit(f"error: {mismatch}")
    print(json.dumps(asdict(report), indent=2))


if __name__ == "__main__":
    main()
