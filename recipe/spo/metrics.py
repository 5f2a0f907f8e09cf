"""What a rollout tells about itself: counts a question, and the `spo/*` metrics of a step.

What each metric says: `docs/metrics.md`.
A worker attaches the counts of its question to the question's tag, whether or not it gave a row, so
nothing that was dropped goes uncounted; the trainer sums them up.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recipe.spo.chain import ChainRollout
from recipe.spo.rewards.verdict import Reason
from recipe.spo.rows import Selection
from recipe.spo.tree import Node, walk

Counts = dict[str, float]


def selection_counts(selection: Selection) -> Counts:
    """What became of a question's samples, as sums to be added up over the questions of a step.

    The advantage of a row is that of its segment; of a chain's response with several, the largest one.
    """
    advantages = [max(row.advantages, key=abs) for row in selection.rows]
    return {
        "questions": 1,
        "samples": len(selection.rows) + selection.zero_advantage + selection.all_masked,
        "rows": len(selection.rows),
        "dropped_zero_advantage": selection.zero_advantage,
        "dropped_all_masked": selection.all_masked,
        "questions_without_rows": int(not selection.rows),
        "trainable_tokens": sum(sum(row.response_mask) for row in selection.rows),
        "row_tokens": sum(len(row.response_ids) for row in selection.rows),
        "advantage_abs": sum(abs(advantage) for advantage in advantages),
        "advantage_sum": sum(advantages),
        "advantage_squares": sum(advantage**2 for advantage in advantages),
    }


def tree_counts(root: Node, depth: int) -> Counts:
    """Sums over one tree; `nodes_1`, `nodes_2`, ... count the segments of each depth, `values_N` add up their values.

    Args:
        root: a tree with values.
        depth: levels of a full tree; a response that ends before the last one is an early leaf.
    """
    if root.value is None:
        raise ValueError("the tree has no values: call compute_values first")
    counts: Counts = {"trees": 1, "root_value": root.value, **_no_endings(), "generated_tokens": 0, "segments": 0}
    visits = list(walk(root))
    for visit in visits[1:]:
        counts["segments"] += 1
        for name, number in ((f"nodes_{visit.depth}", 1), (f"values_{visit.depth}", visit.node.value)):
            counts[name] = counts.get(name, 0) + number
        counts["generated_tokens"] += len(visit.node.token_ids)
        if visit.node.is_leaf:
            counts["cut_points"] += visit.depth - 1
            _count_ending(counts, visit.node, early=visit.depth < depth)
    return counts


def chain_counts(rollout: ChainRollout) -> Counts:
    """Sums over the responses of one question and the continuations of their cuts.

    `leaves` are the responses and `root_value` is their mean reward; `segments` are those of all
    responses, `states` their distinct cuts, and `continuations` the samples that value these.

    Args:
        rollout: a rollout with rewards.
    """
    responses = [trajectory.response for trajectory in rollout.trajectories]
    samples = [sample for group in rollout.continuations.values() for sample in group]
    counts: Counts = {
        "root_value": sum(response.reward for response in responses) / len(responses),
        **_no_endings(),
        "generated_tokens": sum(len(node.token_ids) for node in responses + samples),
        "segments": sum(len(trajectory.cuts) for trajectory in rollout.trajectories),
        "states": len(rollout.continuations),
        "state_values": sum(rollout.values().values()),
        "continuations": len(samples),
        "continuation_tokens": sum(len(sample.token_ids) for sample in samples),
    }
    for trajectory in rollout.trajectories:
        # The state at 0 is the prompt, which is valued but cuts nothing.
        counts["cut_points"] += sum(cut > 0 for cut in trajectory.cuts)
        _count_ending(counts, trajectory.response, early=False)
    return counts


def _no_endings() -> Counts:
    return dict.fromkeys(("leaves", "early_leaves", "unfinished_leaves", "leaf_reward", "cut_points"), 0)


def _count_ending(counts: Counts, node: Node, early: bool) -> None:
    counts["leaves"] += 1
    counts["leaf_reward"] += node.reward or 0.0
    counts["early_leaves"] += int(node.finished and early)
    counts["unfinished_leaves"] += int(not node.finished)
    if node.verdict:
        # A reward function of one's own may give any reason: one metric for all of those.
        reason = node.verdict if node.verdict in tuple(Reason) else "other"
        counts[f"verdict_{reason}"] = counts.get(f"verdict_{reason}", 0) + 1


#: Sums that are shown as they are, where a rollout has them.
SHOWN = (
    "trees",
    "rows",
    "samples",
    "segments",
    "states",
    "continuations",
    "continuation_tokens",
    "generated_tokens",
    "trainable_tokens",
    "questions_without_rows",
    "dropped_zero_advantage",
    "dropped_all_masked",
)


def step_metrics(counts: Sequence[Mapping[str, float]], failed_questions: int) -> dict[str, Any]:
    """Sum the counts of a step's questions and name them as the trackers show them.

    Args:
        counts: one mapping a question: `selection_counts`, `tree_counts` or `chain_counts`, and the
            worker's `prompt_tokens`, `cached_tokens` and `rollout_seconds`; with `dump_dir`, its recorder's.
        failed_questions: questions whose rollout raised; they have no counts.

    Returns:
        Metrics under `spo/`. Shares are of the step as a whole, not means of shares.
    """
    total: Counts = {}
    for entry in counts:
        for name, number in entry.items():
            total[name] = total.get(name, 0) + number
    metrics: dict[str, Any] = {"spo/failed_questions": failed_questions, "spo/questions": total.get("questions", 0)}
    if not counts:
        return metrics
    metrics.update({f"spo/{name}": total[name] for name in SHOWN if name in total})
    metrics["spo/root_value"] = total["root_value"] / total["questions"]
    metrics["spo/leaf_reward"] = total["leaf_reward"] / max(total["leaves"], 1)
    metrics["spo/early_leaf_share"] = total["early_leaves"] / max(total["leaves"], 1)
    metrics["spo/unfinished_leaf_share"] = total["unfinished_leaves"] / max(total["leaves"], 1)
    metrics["spo/zero_advantage_share"] = total["dropped_zero_advantage"] / max(total["samples"], 1)
    metrics["spo/trainable_token_share"] = total["trainable_tokens"] / max(total["row_tokens"], 1)
    metrics["spo/advantage_abs"] = total["advantage_abs"] / max(total["rows"], 1)
    metrics["spo/advantage_std"] = _standard_deviation(
        total["advantage_sum"], total["advantage_squares"], total["rows"]
    )
    metrics["spo/cut_points_per_response"] = total["cut_points"] / max(total["leaves"], 1)
    if total.get("states"):
        metrics["spo/state_value"] = total["state_values"] / total["states"]
    metrics["spo/prefix_cache_hit_rate"] = total["cached_tokens"] / max(total["prompt_tokens"], 1)
    metrics["spo/rollout_seconds_per_question"] = total["rollout_seconds"] / total["questions"]
    if "dumped" in total:
        metrics["spo/dump/questions"] = total["dumped"]
        metrics["spo/dump/not_sampled"] = total["dump_not_sampled"]
        metrics["spo/dump/over_limit"] = total["dump_over_limit"]
        metrics["spo/dump/seconds"] = total["dump_seconds"]
    for depth in sorted(name.removeprefix("nodes_") for name in total if name.startswith("nodes_")):
        metrics[f"spo/nodes_at_depth_{depth}"] = total[f"nodes_{depth}"]
        metrics[f"spo/value_at_depth_{depth}"] = total[f"values_{depth}"] / total[f"nodes_{depth}"]
    if any(name.startswith("verdict_") for name in total):
        for reason in (*Reason, "other"):
            metrics[f"spo/verdict/{reason}_share"] = total.get(f"verdict_{reason}", 0) / max(total["leaves"], 1)
    return metrics


def _standard_deviation(total: float, squares: float, count: float) -> float:
    if not count:
        return 0.0
    # Rounding can make a variance of nothing a little negative.
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
