"""docs/metrics.md names every `spo/*` metric that the code can emit, and no other."""

from __future__ import annotations

import re

from recipe.spo.advantage import chain_samples, tree_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.metrics import chain_counts, selection_counts, step_metrics, tree_counts
from recipe.spo.rewards.verdict import Reason
from recipe.spo.rows import select_rows
from recipe.spo.tree import Node, compute_values
from tests.builders import inner, leaf, root_of
from tests.conftest import REPOSITORY

WORKER = {"prompt_tokens": 10, "cached_tokens": 4, "rollout_seconds": 1.0}
RECORDER = {"dumped": 1, "dump_not_sampled": 0, "dump_over_limit": 0, "dump_seconds": 0.1}
#: Where metrics are named that no rollout's counts hold.
EMITTERS = ("trainer.py", "rollout/queue.py", "sharing.py")


def of_a_tree() -> dict:
    root = root_of(inner(leaf(1), leaf(0)), leaf(1))
    root.children[1].verdict = "correct"
    compute_values(root)
    selection = select_rows([1], tree_samples(root), 0.9)
    return step_metrics([tree_counts(root, 2) | selection_counts(selection) | WORKER | RECORDER], failed_questions=0)


def of_a_chain() -> dict:
    response = Node([5, 6], [-1.0, -1.0], finished=True, reward=1.0, verdict="correct")
    rollout = ChainRollout([Trajectory(response, [0, 1])], {(): [leaf(0)], (5,): [leaf(1)]})
    selection = select_rows([1], chain_samples(rollout), 0.9)
    return step_metrics([chain_counts(rollout) | selection_counts(selection) | WORKER | RECORDER], failed_questions=0)


def of_the_trainer() -> set[str]:
    """Names as they stand in the source, an f-string's number as N."""
    source = "".join((REPOSITORY / "recipe/spo" / name).read_text() for name in EMITTERS)
    return {re.sub(r"\{\w+\}", "N", name) for name in re.findall(r'"(spo/[\w/{}]+)"', source)}


def general(name: str) -> str:
    for reason in (*Reason, "other"):
        name = name.replace(f"verdict/{reason}_share", "verdict/REASON_share")
    return re.sub(r"_\d+$", "_N", name)


def documented() -> list[str]:
    lines = (REPOSITORY / "docs/metrics.md").read_text().splitlines()
    return [match[1] for line in lines if (match := re.match(r"\| `(spo/[\w/]+)` \|", line))]


def test_the_table_names_exactly_what_is_emitted():
    emitted = {general(name) for name in {*of_a_tree(), *of_a_chain(), *of_the_trainer()}}
    assert set(documented()) == emitted
    assert len(documented()) == len(set(documented()))


def test_what_is_told_of_trees_or_chains_only_is_emitted_for_these_only():
    rows = re.findall(
        r"\| `(spo/[\w/]+)` \| (trees|trees, groups|chains) \|", (REPOSITORY / "docs/metrics.md").read_text()
    )
    trees, chains = ({general(name) for name in metrics} for metrics in (of_a_tree(), of_a_chain()))
    only = {name for name, _ in rows} - {"spo/early_leaf_share"}  # 0 for chains
    assert only == trees ^ chains
    assert {name for name, of in rows if of == "chains"} == chains - trees


def test_the_readme_shows_metrics_that_exist():
    section = (REPOSITORY / "README.md").read_text().split("### Metrics to watch")[1].split("\n## ")[0]
    shown = re.findall(r"`(spo/[\w/]+)`", section)
    assert shown and set(shown) <= set(documented())
