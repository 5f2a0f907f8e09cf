"""What the trainer does with rows that have waited, with a dictionary in place of verl's queue."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.integration
NOW = 5
SAMPLED = {"old": [-1.0, -2.0], "new": [-0.5, -0.7, -0.1], "padding": [-9.0]}
TAGS = {"old": {"global_steps": 3}, "new": {"global_steps": NOW}, "padding": {"global_steps": 1, "is_padding": True}}


class Queue:
    """Rows by key and field, got and put as jagged tensors."""

    def __init__(self):
        self.rows = {
            key: {
                "rollout_log_probs": torch.tensor(values),
                "response_mask": torch.ones(len(values), dtype=torch.long),
                "responses": torch.ones(len(values), dtype=torch.long),
            }
            for key, values in SAMPLED.items()
        }

    def get(self, keys, partition_id, select_fields):
        from tensordict import TensorDict

        fields = {
            name: torch.nested.as_nested_tensor([self.rows[key][name] for key in keys], layout=torch.jagged)
            for name in select_fields
        }
        return TensorDict(fields, batch_size=len(keys))

    def put(self, keys, partition_id, fields=None, tags=None):
        for name in fields.keys():
            for key, values in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = values


@pytest.fixture
def queue(monkeypatch):
    import transfer_queue

    made = Queue()
    monkeypatch.setattr(transfer_queue, "kv_batch_get", made.get)
    monkeypatch.setattr(transfer_queue, "kv_batch_put", made.put)
    return made


def trainer_and_batch(bypass: bool = False):
    import verl  # noqa: F401  # loads the plug-ins
    from omegaconf import OmegaConf

    from recipe.spo.trainer import SPOTrainer

    trainer = object.__new__(SPOTrainer)
    trainer.global_steps = NOW
    trainer.spo = SimpleNamespace(replay=SimpleNamespace(max_age=2))
    trainer.config = OmegaConf.create({"algorithm": {"rollout_correction": {"bypass_mode": bypass}}})
    batch = SimpleNamespace(
        keys=list(SAMPLED), tags=list(TAGS.values()), partition_id="train", fields=["responses"], extra_info={}
    )
    return trainer, batch


def test_rows_that_waited_keep_the_log_probs_they_were_sampled_with(queue, monkeypatch):
    from recipe.spo.trainer import SPOTrainer

    def verls_pass(self, batch, metrics):
        for row in queue.rows.values():
            row["old_log_probs"] = row["rollout_log_probs"] - 0.25
        metrics["training/rollout_probs_diff_mean"] = 77.0  # of all rows
        return batch

    monkeypatch.setattr(SPOTrainer.__mro__[1], "_compute_old_log_prob", verls_pass)
    trainer, batch = trainer_and_batch()
    metrics = {}
    trainer._compute_old_log_prob(batch, metrics)
    assert queue.rows["old"]["old_log_probs"].tolist() == SAMPLED["old"]
    assert queue.rows["new"]["old_log_probs"].tolist() == pytest.approx([x - 0.25 for x in SAMPLED["new"]])
    assert metrics["spo/replay/log_prob_drift"] == pytest.approx(0.25)
    change = (torch.tensor(SAMPLED["new"]).exp() * (1 - torch.exp(torch.tensor(-0.25)))).mean().item()
    assert metrics["training/rollout_probs_diff_mean"] == pytest.approx(change)  # of the new row alone


def test_without_a_pass_of_the_trainer_there_is_no_drift_to_show(queue):
    trainer, batch = trainer_and_batch(bypass=True)
    metrics = {}
    trainer._compute_old_log_prob(batch, metrics)
    assert queue.rows["old"]["old_log_probs"].tolist() == SAMPLED["old"] and metrics == {}


def test_every_token_has_an_age_and_workers_fetch_it(queue):
    from recipe.spo.compat.aged_loss import AGE_FIELD, OLDEST

    trainer, batch = trainer_and_batch()
    trainer._put_ages(batch)
    assert {key: row[AGE_FIELD].tolist() for key, row in queue.rows.items()} == {
        "old": [2, 2],
        "new": [0, 0, 0],
        "padding": [0],
    }
    assert batch.fields == ["responses", AGE_FIELD] and batch.extra_info == {OLDEST: 2}
