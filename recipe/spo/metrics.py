"""What a rollout tells about itself: counts a tree, and the `spo/*` metrics of a step.

A worker attaches the counts of its prompt to the prompt's tag, whether or not the prompt gave a
row, so nothing that was dropped goes uncounted; the trainer sums them up.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipe.spo.rows import Selection
from recipe.spo.tree import Node, walk


def tree_counts(root: Node, selection: Selection) -> dict[str, float]:
    """Plain sums over one tree, made to be added up over the trees of a step.

    Args:
        root: a tree with values.
        selection: what `select_rows` made of it.

    Returns:
        Names to numbers; `nodes_1`, `nodes_2`, ... count the segments of each depth.
    """
    if root.value is None:
        raise ValueError("the tree has no values: call compute_values first")
    counts: dict[str, float] = {
        "trees": 1,
        "rows": len(selection.rows),
        "dropped_zero_advantage": selection.zero_advantage,
        "dropped_all_masked": selection.all_masked,
        "prompts_without_rows": int(not selection.rows),
        "trained_tokens": sum(sum(row.response_mask) for row in selection.rows),
        "row_tokens": sum(len(row.response_ids) for row in selection.rows),
        "advantage_abs": sum(max(map(abs, row.advantages)) for row in selection.rows),
        "root_value": root.value,
        "generated_tokens": 0,
        "segments": 0,
        "leaves": 0,
        "early_leaves": 0,
        "unfinished_leaves": 0,
        "leaf_reward": 0.0,
    }
    visits = list(walk(root))
    depth = max(visit.depth for visit in visits)
    for visit in visits[1:]:
        counts["segments"] += 1
        counts[f"nodes_{visit.depth}"] = counts.get(f"nodes_{visit.depth}", 0) + 1
        counts["generated_tokens"] += len(visit.node.token_ids)
        if visit.node.is_leaf:
            counts["leaves"] += 1
            counts["leaf_reward"] += visit.node.reward or 0.0
            counts["early_leaves"] += int(visit.node.finished and visit.depth < depth)
            counts["unfinished_leaves"] += int(not visit.node.finished)
    return counts


def step_metrics(counts: Sequence[Mapping[str, float]], failed_prompts: int) -> dict[str, Any]:
    """Sum the counts of a step's trees and name them as the trackers show them.

    Args:
        counts: one mapping a tree, from `tree_counts` (the worker adds `prompt_tokens`,
            `cached_tokens` and `rollout_seconds`).
        failed_prompts: prompts whose rollout raised; they have no counts.

    Returns:
        Metrics under `spo/`. Shares are of the step as a whole, not means of shares.
    """
    total: dict[str, float] = {}
    for entry in counts:
        for name, number in entry.items():
            total[name] = total.get(name, 0) + number
    metrics: dict[str, Any] = {"spo/failed_prompts": failed_prompts, "spo/trees": total.get("trees", 0)}
    if not counts:
        return metrics
    for name in (
        "rows",
        "segments",
        "generated_tokens",
        "trained_tokens",
        "prompts_without_rows",
        "dropped_zero_advantage",
        "dropped_all_masked",
    ):
        metrics[f"spo/{name}"] = total[name]
    metrics["spo/root_value"] = total["root_value"] / total["trees"]
    metrics["spo/leaf_reward"] = total["leaf_reward"] / max(total["leaves"], 1)
    metrics["spo/early_leaf_share"] = total["early_leaves"] / max(total["leaves"], 1)
    metrics["spo/unfinished_leaf_share"] = total["unfinished_leaves"] / max(total["leaves"], 1)
    metrics["spo/zero_advantage_share"] = total["dropped_zero_advantage"] / max(total["segments"], 1)
    metrics["spo/trained_token_share"] = total["trained_tokens"] / max(total["row_tokens"], 1)
    metrics["spo/advantage_abs"] = total["advantage_abs"] / max(total["rows"], 1)
    metrics["spo/prefix_cache_hit_rate"] = total["cached_tokens"] / max(total["prompt_tokens"], 1)
    metrics["spo/rollout_seconds_per_tree"] = total["rollout_seconds"] / total["trees"]
    for name in sorted(n for n in total if n.startswith("nodes_")):
        metrics[f"spo/nodes_at_depth_{name.removeprefix('nodes_')}"] = total[name]
    return metrics
