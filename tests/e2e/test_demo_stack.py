"""The whole stack: a run's rows against the trees that were sampled, log-probs after a weight sync, clean exit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from recipe.spo.check_dump import DumpMismatch, check_dump
from recipe.spo.dump import ROWS, read_dump
from recipe.spo.training_log import curves, read_records
from tests.conftest import REPOSITORY
from tests.e2e.stack import (
    OPTIMIZER_STEPS,
    QUESTIONS,
    command_of,
    environment_of,
    left_in_shared_memory,
    processes_of,
    shared_memory,
    train,
)

pytestmark = pytest.mark.e2e
STEPS = 3
TREE = ("algorithm.spo.tree.branch_factors=[3,2,2]", "algorithm.spo.tree.segment_length=6")


@pytest.fixture(scope="module")
def run(arithmetic, policy, tmp_path_factory):
    """Three steps, with the reference policy and its KL term as in the paper, and a checkpoint at the end."""
    out = tmp_path_factory.mktemp("run")
    (out / "shared_memory").write_text("\n".join(shared_memory()))
    done = train(arithmetic, policy, out, *TREE, f"trainer.total_training_steps={STEPS}", f"trainer.save_freq={STEPS}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return out, done, [record["data"] for record in read_records(out / "metrics.jsonl")]


def steps_with_rows(metrics: list[dict]) -> list[dict]:
    """Metrics of the steps that trained; the first record is the validation before training."""
    return [step for step in metrics[1:] if step["spo/rows"] > 0]


def test_rows_are_the_segments_that_were_sampled(run):
    out, _, metrics = run
    report = check_dump(out / "dump", 0.9, frozenset({1}))
    assert report.trees == STEPS * QUESTIONS
    assert report.steps == len(steps_with_rows(metrics)) >= 2
    assert report.rows > 0 and report.finished_leaves > 0


def test_sampler_and_trainer_agree_after_weight_syncs(run):
    out, _, metrics = run
    report = check_dump(out / "dump", 0.9, frozenset({1}))
    assert 0 < report.max_log_prob_difference_after_sync < 1e-3
    assert all(step["actor/grad_norm"] > 0 for step in steps_with_rows(metrics))  # so the weights did move


def test_counts_add_up(run):
    out, _, metrics = run
    report = check_dump(out / "dump", 0.9, frozenset({1}))
    training = metrics[1:]  # the first record is the validation before training
    for name, counted in (("questions", report.trees), ("segments", report.segments), ("rows", report.rows)):
        assert sum(step[f"spo/{name}"] for step in training) == counted
    assert sum(step["spo/trained_tokens"] for step in training) == report.trained_tokens
    for step in training:
        dropped = step["spo/dropped_zero_advantage"] + step["spo/dropped_all_masked"]
        assert step["spo/rows"] + dropped == step["spo/segments"]
        if step["spo/trained_rows"] == step["spo/rows"] > 0:  # with the sampler's mask nothing is left out afterwards
            assert step["spo/trained_token_share"] == pytest.approx(step["spo/trainable_token_share"])
        assert step["spo/failed_questions"] == 0


def test_every_response_has_a_verdict(run):
    """In training one a leaf; in validation as numbers that verl averages, `unfinished` among them."""
    _, _, metrics = run
    for step in metrics[1:]:
        shares = {name: value for name, value in step.items() if name.startswith("spo/verdict/")}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares.get("spo/verdict/unfinished_share", 0.0) == step["spo/unfinished_leaf_share"]
        assert shares.get("spo/verdict/correct_share", 0.0) == pytest.approx(step["spo/leaf_reward"])
    shares = {name.split("/")[-2]: value for name, value in metrics[0].items() if "/is_" in name and "mean@1" in name}
    accuracy = next(value for name, value in metrics[0].items() if "/acc/mean@1" in name)
    assert {"is_wrong", "is_unfinished"} <= set(shares)
    assert sum(shares.values()) + accuracy == pytest.approx(1.0)


def test_optimiser_steps_do_not_depend_on_the_number_of_rows(run):
    """Counted where it cannot be argued with: in the state of AdamW in the checkpoint."""
    out, _, metrics = run
    trained = steps_with_rows(metrics)
    assert all((step["spo/rows"] + step["spo/padding_rows"]) % OPTIMIZER_STEPS == 0 for step in trained)
    script = """
import sys, torch
torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
state = torch.load(sys.argv[1], weights_only=False)["state"]
print({int(entry["step"]) for entry in state.values()})
"""
    (checkpoint,) = out.glob(f"checkpoints/global_step_{STEPS}/actor/optim*.pt")
    found = subprocess.check_output([sys.executable, "-c", script, str(checkpoint)], text=True, timeout=120)
    assert found.strip() == str({OPTIMIZER_STEPS * len(trained)})


def test_validation_is_plain_single_turn(run):
    _, _, metrics = run
    accuracy = curves([{"step": 0, "data": metrics[0]}]).accuracy
    assert 0 <= accuracy[0] <= 1
    assert not any(name.startswith("spo/") for name in metrics[0])


def test_the_check_finds_a_changed_row(run, tmp_path):
    """The checker itself can fail: one flipped mask bit, one moved token."""
    out, _, _ = run
    rows = list(read_dump(out / "dump", ROWS))
    index = next(i for i, row in enumerate(rows) if not row["is_padding"])
    for field in ("response_mask", "responses", "advantages", "prompts"):
        folder = tmp_path / field
        folder.mkdir()
        for trees in (out / "dump").glob("trees-*.jsonl"):
            (folder / trees.name).write_bytes(trees.read_bytes())
        changed = json.loads(json.dumps(rows))
        changed[index][field][0] += 1
        (folder / "rows-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(DumpMismatch, match=f"field {field}"):
            check_dump(folder, 0.9, frozenset({1}))


def test_nothing_is_left_behind(run):
    out, _, _ = run
    assert processes_of(str(out)) == []
    # Read before another test starts a run of its own.
    assert left_in_shared_memory(set((out / "shared_memory").read_text().split())) == set()


def test_steps_without_any_row_are_counted_and_ctrl_c_leaves_nothing_behind(arithmetic, policy, tmp_path):
    """A mask that no token passes: no rows, no update, no NaN, the weights stay, and the run goes on until Ctrl-C."""
    segments, metrics = shared_memory(), tmp_path / "metrics.jsonl"
    overrides = (
        "algorithm.spo.mask_threshold=1e-9",
        "actor_rollout_ref.actor.use_kl_loss=False",
        "trainer.total_training_steps=100",
        "trainer.test_freq=2",
    )
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command_of(arithmetic, policy, tmp_path, *TREE, *overrides),
            cwd=REPOSITORY,
            env=environment_of(tmp_path),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        while len(read_records(metrics)) < 3:  # the validation before training, and two steps
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.5)
        assert len(processes_of(str(tmp_path))) > 5  # the search does find a run that is alive
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(timeout=120) != 0
    assert processes_of(str(tmp_path)) == []
    assert left_in_shared_memory(segments) == set()
    before, *steps = [record["data"] for record in read_records(metrics)][:3]
    assert [step["spo/skipped_updates"] for step in steps] == [1, 1]
    assert [step["spo/questions_without_rows"] for step in steps] == [QUESTIONS, QUESTIONS]
    assert all(step["spo/dropped_all_masked"] > 0 for step in steps)
    assert "NaN" not in metrics.read_text()
    name = next(key for key in before if key.startswith("val-core/"))
    assert steps[-1][name] == before[name]
