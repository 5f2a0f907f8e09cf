"""The whole stack with other methods: chains, and PPO with its critic."""

from __future__ import annotations

import pytest

from recipe.spo.check_dump import check_dump
from recipe.spo.dump import CHAINS, ROWS, read_dump
from tests.e2e.stack import QUESTIONS, step_metrics_of, train

pytestmark = pytest.mark.e2e
STEPS = 2


def test_chains_train_on_what_was_sampled(arithmetic, policy, tmp_path):
    done = train(
        arithmetic,
        policy,
        tmp_path,
        "method=chain",
        "algorithm.spo.chain.trajectories=3",
        "algorithm.spo.chain.continuations=2",
        "algorithm.spo.chain.cut_interval=2",
        "algorithm.spo.optimizer_steps=2",
        "actor_rollout_ref.actor.use_kl_loss=False",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=False",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    report, metrics = check_dump(tmp_path / "dump", 0.9, frozenset({1})), step_metrics_of(tmp_path)
    assert report.chains == STEPS * QUESTIONS and report.rows > 0 and report.steps == STEPS
    assert report.max_log_prob_difference < 1e-3
    total = {
        name: sum(step[f"spo/{name}"] for step in metrics.values()) for name in ("rows", "states", "continuations")
    }
    assert total["continuations"] == 2 * total["states"] == report.continuations
    assert total["rows"] == report.rows == sum(step["spo/replay/taken_rows"] for step in metrics.values())


def test_rows_that_do_not_train_never_reach_a_forward_pass(arithmetic, policy, tmp_path):
    """Six rows a step of a tree that gives many more: the others are dropped before the log-prob pass."""
    done = train(
        arithmetic,
        policy,
        tmp_path,
        "algorithm.spo.tree.branch_factors=[3,2,2]",
        "algorithm.spo.tree.segment_length=6",
        "algorithm.spo.optimizer_steps=2",
        "algorithm.spo.replay.rows_per_step=6",
        "algorithm.spo.replay.rows_per_question=2",
        "actor_rollout_ref.actor.use_kl_loss=False",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=False",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    (metrics,) = step_metrics_of(tmp_path).values()
    rows = list(read_dump(tmp_path / "dump", ROWS))
    assert len(rows) == metrics["spo/replay/taken_rows"] == 6
    assert metrics["spo/replay/expired_rows"] == metrics["spo/rows"] - 6 > 0
    # What the trainer computed log-probs for is what verl counted as the batch's tokens.
    tokens = sum(len(row["prompts"]) + len(row["responses"]) for row in rows)
    assert metrics["perf/total_num_tokens"] == tokens
    assert not list(read_dump(tmp_path / "dump", CHAINS))


@pytest.mark.slow
def test_ppo_trains_its_critic_on_every_token_and_its_policy_under_the_mask(arithmetic, policy, tmp_path):
    done = train(
        arithmetic,
        policy,
        tmp_path,
        "method=ppo",
        "algorithm.spo.group.responses=4",
        "algorithm.spo.mask_threshold=0.9",
        "algorithm.spo.optimizer_steps=2",
        "critic.optim.lr=1e-3",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=False",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    metrics = step_metrics_of(tmp_path)
    for step, values in metrics.items():
        rows = [row for row in read_dump(tmp_path / "dump", ROWS) if row["step"] == step and not row["is_padding"]]
        assert len(rows) == 4 * QUESTIONS == values["spo/rows"]
        trained = sum(sum(row["response_mask"]) for row in rows)
        assert 0 < trained == values["spo/trained_tokens"] < sum(len(row["responses"]) for row in rows)
        assert all(row["loss_mask"] == row["response_mask"] for row in rows)
        assert values["critic/grad_norm"] > 0 and values["actor/grad_norm"] > 0
        assert any(len(set(row["advantages"])) > 2 for row in rows)  # token by token
