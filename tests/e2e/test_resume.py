"""A run with replay that is killed and resumed goes on as if it had not stopped."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from recipe.spo.check_dump import check_dump
from recipe.spo.dump import ROWS, TREES, read_dump
from tests.e2e.stack import step_metrics_of, train, train_and_kill

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STEPS, SAVED = 5, 2
REPLAY = (
    "algorithm.spo.tree.branch_factors=[3,2,2]",
    "algorithm.spo.tree.segment_length=6",
    "algorithm.spo.optimizer_steps=2",
    "algorithm.spo.replay.rows_per_step=16",
    "algorithm.spo.replay.rows_per_question=4",
    "algorithm.spo.replay.max_age=2",
    "actor_rollout_ref.actor.use_kl_loss=False",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=False",
    f"trainer.save_freq={SAVED}",
)
RECORDED = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=tests.e2e.recorded.RecordedManager"


def questions_by_step(dump: Path) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for tree in read_dump(dump, TREES):
        found.setdefault(tree["step"], set()).add(tree["index"])
    return found


def rows_by_step(dump: Path) -> dict[int, dict[tuple, dict]]:
    """Trained rows of each step, by what they are: (step of birth, question, path)."""
    found: dict[int, dict[tuple, dict]] = {}
    for row in read_dump(dump, ROWS):
        if not row["is_padding"]:
            found.setdefault(row["step"], {})[row["born"], row["question"], row["path"]] = row
    return found


def check_against_old_weights(out: Path, policy: Path) -> None:
    """Waiting rows train with the log-probs of the weights that sampled them, recomputed from checkpoints."""
    waited = [row for row in read_dump(out / "dump", ROWS) if not row["is_padding"] and row["born"] < row["step"]]
    assert {row["step"] - row["born"] for row in waited} == {1, 2}
    right, wrong = 0.0, 0.0
    for row in waited:
        # The weights of step s are those that step s - 1 left.
        right = max(right, difference(row, weights_of(out, policy, row["born"])))
        wrong = max(wrong, difference(row, weights_of(out, policy, row["step"])))
    assert right < 1e-3 < wrong


@functools.cache
def weights_of(out: Path, policy: Path, step: int) -> AutoModelForCausalLM:
    folder = policy if step == 1 else out / "checkpoints" / f"global_step_{step - 1}" / "actor" / "huggingface"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def difference(row: dict, model: AutoModelForCausalLM) -> float:
    """Largest difference between a row's old_log_probs and the model's, in nats."""
    prompt, response = row["prompts"], row["responses"]
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    found = logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
    return (found - torch.tensor(row["old_log_probs"])).abs().max().item()


def test_a_killed_run_resumes_with_the_questions_rows_and_choices_of_one_that_was_not(arithmetic, policy, tmp_path):
    whole, killed, resumed = tmp_path / "whole", tmp_path / "killed", tmp_path / "resumed"
    hugging_face = "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"
    all_kept = ("trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=null")
    done = train(arithmetic, policy, whole, *REPLAY, *all_kept, hugging_face)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    report = check_dump(whole / "dump", 0.9, frozenset({1}), replay=True)
    assert report.rows_of_earlier_steps > 0  # with the log-probs that they were sampled with
    check_against_old_weights(whole, policy)

    played = {"SPO_RECORDED": str(whole / "dump")}
    train_and_kill(arithmetic, policy, killed, SAVED + 1, *REPLAY, RECORDED, **played)
    done = train(
        arithmetic, policy, resumed, *REPLAY, RECORDED, f"trainer.default_local_dir={killed / 'checkpoints'}", **played
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]

    expected, found = rows_by_step(whole / "dump"), rows_by_step(resumed / "dump")
    later = set(range(SAVED + 1, STEPS + 1))
    assert set(found) == later and set(step_metrics_of(resumed)) == later
    assert questions_by_step(resumed / "dump") == {
        step: questions for step, questions in questions_by_step(whole / "dump").items() if step in later
    }
    for step in later:
        assert found[step].keys() == expected[step].keys()
        for identity, row in found[step].items():
            assert row["advantages"] == expected[step][identity]["advantages"]
            assert row["rollout_log_probs"] == expected[step][identity]["rollout_log_probs"]
    assert any(born <= SAVED for born, _, _ in found[SAVED + 1])  # rows that waited in the checkpoint
    for step in later:
        one, other = step_metrics_of(whole)[step], step_metrics_of(resumed)[step]
        for name in ("spo/replay/taken_rows", "spo/replay/kept_rows", "spo/replay/expired_rows"):
            assert one[name] == other[name]
        assert one["actor/grad_norm"] == pytest.approx(other["actor/grad_norm"], rel=0.02)
