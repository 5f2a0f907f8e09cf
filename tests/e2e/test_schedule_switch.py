"""The context schedule switches at its step, also in a run that is resumed across the switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.spo.dump import ROWS, read_dump
from tests.e2e.stack import step_metrics_of, train, train_and_kill

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SHORT, LONG, SWITCH, SAVED, STEPS = 40, 72, 3, 2, 5  # prompts have 20 to 31 tokens, solutions 8 to 21
SCHEDULED = (
    "algorithm.spo.tree.branch_factors=[4,3]",
    "algorithm.spo.tree.segment_length=4",
    "algorithm.spo.optimizer_steps=1",
    "data.max_prompt_length=32",
    f"algorithm.spo.context_schedule=[{{from_step:1,context:{SHORT}}},"
    f"{{from_step:{SWITCH},context:{LONG},segment_length:7}}]",
    "trainer.val_before_train=False",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={SAVED}",
)


def stages_of(out: Path) -> dict[int, tuple[float, int, int]]:
    """Of each step: the context that was logged, the longest trained path, and the longest first segment."""
    found = {}
    for step, metrics in step_metrics_of(out).items():
        rows = [row for row in read_dump(out / "dump", ROWS) if row["step"] == step and not row["is_padding"]]
        first = [len(row["responses"]) for row in rows if "." not in row["path"]]  # segments that leave the prompt
        found[step] = (
            metrics["spo/context"],
            max(len(row["prompts"]) + len(row["responses"]) for row in rows),
            max(first, default=0),
        )
    return found


def test_a_run_switches_and_one_resumed_across_the_switch_does_too(arithmetic, policy, tmp_path):
    killed, resumed = tmp_path / "killed", tmp_path / "resumed"
    train_and_kill(arithmetic, policy, killed, SWITCH, *SCHEDULED)
    here = f"trainer.default_local_dir={killed / 'checkpoints'}"
    done = train(arithmetic, policy, resumed, *SCHEDULED, here)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]

    before, after = stages_of(killed), stages_of(resumed)
    assert set(before) >= {1, 2, SWITCH} and set(after) == set(range(SAVED + 1, STEPS + 1))
    for stages in (before, after):
        for step, (context, longest, first) in stages.items():
            limit, segment = (SHORT, 4) if step < SWITCH else (LONG, 7)
            # A step may train no segment that leaves the prompt.
            assert context == limit and first in (0, segment) and longest <= limit
    assert {first for stages in (before, after) for _, _, first in stages.values()} >= {4, 7}
    assert max(longest for _, longest, _ in after.values()) > SHORT
