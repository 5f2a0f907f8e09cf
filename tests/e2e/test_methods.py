"""The whole stack with other methods: chains, and PPO with its critic."""

from __future__ import annotations

import math

import pytest

from recipe.spo.check_dump import check_dump
from recipe.spo.dump import ROWS, read_dump
from tests.e2e.stack import QUESTIONS, step_metrics_of, train

# `make test` has SPO-tree alone; chains and PPO go through the stack in CI by way of `make check-experiments`, too.
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STEPS, ROWS_A_STEP, LOG_THRESHOLD = 2, 8, math.log(0.9)


@pytest.fixture(scope="module")
def chains(arithmetic, policy, tmp_path_factory):
    """Two steps of SPO-chain, at most eight rows each, with verl's own settings of KL, entropy and correction."""
    out = tmp_path_factory.mktemp("chains")
    done = train(
        arithmetic,
        policy,
        out,
        "method=chain",
        "algorithm.spo.chain.trajectories=3",
        "algorithm.spo.chain.continuations=2",
        "algorithm.spo.chain.cut_interval=2",
        "algorithm.spo.optimizer_steps=2",
        f"algorithm.spo.replay.rows_per_step={ROWS_A_STEP}",
        "actor_rollout_ref.actor.kl_loss_type=k1",
        "actor_rollout_ref.actor.entropy_coeff=0.01",
        "algorithm.rollout_correction.rollout_is=token",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=False",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return out, step_metrics_of(out)


def test_chains_train_on_what_was_sampled(chains):
    out, metrics = chains
    report = check_dump(out / "dump", 0.9, frozenset({1}), replay=True)
    assert report.chains == STEPS * QUESTIONS and report.rows > 0 and report.steps == STEPS
    assert report.max_log_prob_difference < 1e-3
    states, continuations = (sum(step[f"spo/{n}"] for step in metrics.values()) for n in ("states", "continuations"))
    assert continuations == 2 * states == report.continuations


def test_rows_that_do_not_train_never_reach_a_forward_pass(chains):
    """What verl counts as the batch's tokens, log-prob pass and update, are the tokens of eight rows."""
    out, metrics = chains
    for step, values in metrics.items():
        rows = [row for row in read_dump(out / "dump", ROWS) if row["step"] == step]
        assert len(rows) == values["spo/replay/taken_rows"] == ROWS_A_STEP
        assert values["spo/replay/expired_rows"] == values["spo/rows"] - ROWS_A_STEP > 0
        assert values["perf/total_num_tokens"] == sum(len(row["prompts"]) + len(row["responses"]) for row in rows)


def test_verls_own_settings_of_the_loss_take_effect(chains):
    _, metrics = chains
    wanted = {"actor/kl_loss", "actor/entropy_loss", "rollout_corr/rollout_is_mean"}
    assert all(wanted <= values.keys() for values in metrics.values())


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
        tokens = sum(len(row["responses"]) for row in rows)
        assert 0 < trained == values["spo/trained_tokens"] < tokens
        assert values["spo/trained_token_share"] == pytest.approx(trained / tokens)
        assert all(row["loss_mask"] == row["response_mask"] for row in rows)
        assert values["critic/grad_norm"] > 0 and values["actor/grad_norm"] > 0
        assert any(len(set(row["advantages"])) > 2 for row in rows)  # token by token


def test_the_authors_loss_and_mask_run_on_the_whole_stack(arithmetic, policy, tmp_path):
    done = train(
        arithmetic,
        policy,
        tmp_path,
        "algorithm.spo.tree.branch_factors=[3,2,2]",
        "algorithm.spo.tree.segment_length=6",
        "algorithm.spo.optimizer_steps=2",
        "algorithm.spo.as_published_code=True",
        "algorithm.spo.normalize=micro_batch",
        "algorithm.spo.mask_source=trainer",
        "algorithm.spo.replay.rows_per_step=16",
        "actor_rollout_ref.actor.use_dynamic_bsz=False",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=False",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    (metrics,) = step_metrics_of(tmp_path).values()
    rows = [row for row in read_dump(tmp_path / "dump", ROWS) if not row["is_padding"]]
    assert len(rows) == metrics["spo/replay/taken_rows"] > 0 and metrics["actor/grad_norm"] > 0
    for row in rows:
        assert row["loss_mask"] == row["response_mask"] == [int(p < LOG_THRESHOLD) for p in row["old_log_probs"]]
    assert metrics["spo/trained_tokens"] == sum(sum(row["response_mask"]) for row in rows)
