"""A training run with shared prefixes equals the run without, step by step, on the same rollouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.stack import processes_of, step_metrics_of, train

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STEPS = 10
OVERRIDES = (
    "algorithm.spo.tree.branch_factors=[4,3,2]",
    "algorithm.spo.tree.segment_length=8",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.0",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=False",
)
MANAGER = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"


@pytest.fixture(scope="module")
def runs(arithmetic, policy, tmp_path_factory) -> tuple[Path, Path]:
    """Folders of the run with verl's own rows, which sampled, and of the run with shared prefixes on its rollouts."""
    rows, shared = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("shared")
    done = train(arithmetic, policy, rows, *OVERRIDES, "algorithm.spo.share_prefixes=off")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    played_back = (f"{MANAGER}=tests.e2e.recorded.RecordedManager", "algorithm.spo.share_prefixes=on")
    done = train(arithmetic, policy, shared, *OVERRIDES, *played_back, SPO_RECORDED=str(rows / "dump"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert processes_of(str(shared)) == []
    return rows, shared


@pytest.mark.parametrize("name", ["actor/loss", "actor/pg_loss", "actor/kl_loss", "actor/grad_norm", "actor/entropy"])
def test_the_curves_are_equal(runs, name):
    rows, shared = map(step_metrics_of, runs)
    assert set(rows) == set(shared) == set(range(1, STEPS + 1))
    for step in rows:
        assert shared[step][name] == pytest.approx(rows[step][name], rel=1e-4, abs=1e-5), step
    values = [rows[step][name] for step in sorted(rows)]
    assert max(values) - min(values) > 1e-3  # there is something to tell apart


def test_the_same_rows_were_trained_for_fewer_tokens(runs):
    rows, shared = map(step_metrics_of, runs)
    for step, values in shared.items():
        for name in ("spo/trained_rows", "spo/trained_tokens", "spo/padding_rows"):
            assert values[name] == rows[step][name]
        assert values["spo/shared_prefixes/update_ratio"] > 1.2 and values["spo/shared_prefixes/log_prob_ratio"] > 1.2
        assert values["spo/shared_prefixes/check_difference"] < 1e-4
        assert not any(metric.startswith("spo/shared_prefixes/") for metric in rows[step])
