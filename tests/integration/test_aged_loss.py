"""verl's own `ppo_loss`, patched, on rows as its engine packs them: it counts clipped tokens by age."""

from __future__ import annotations

import pytest
import torch

from recipe.spo.compat.aged_loss import AGE_FIELD, OLDEST, clip_fractions
from tests.integration.test_published_loss import ROWS, WHITENED, WIDTH, compose_actor, micro_batch, ragged

pytestmark = pytest.mark.integration

AGES = [0, 0, 2]
NO_KL = "actor_rollout_ref.actor.use_kl_loss=False"


def metrics_of(actor, aged: bool) -> dict[str, float]:
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers import engine_workers

    rows = micro_batch(seed=1, moved=1.0)
    whole = torch.ones(ROWS, WIDTH)
    fields = {"old_log_probs": rows["old_log_probs"], "advantages": rows["advantages"], "response_mask": whole}
    fields["responses"] = whole.long()
    fields[AGE_FIELD] = torch.tensor(AGES)[:, None].expand(ROWS, WIDTH)
    data = TensorDict({name: ragged(list(values)) for name, values in fields.items()}, batch_size=ROWS)
    data["prompts"] = ragged([torch.ones(2, dtype=torch.long)] * ROWS)
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=ROWS * WIDTH, global_batch_size=ROWS)
    if aged:
        tu.assign_non_tensor(data, **{OLDEST: 2})
    # A model gives the log-prob of a token at the place before it: a prompt of two, then all but the last place.
    around = [torch.cat([row.new_zeros(1), row, row.new_zeros(1)]) for row in rows["log_probs"]]
    # As the worker knows it: the name that `engine_workers` has taken from verl's module.
    _, metrics = engine_workers.ppo_loss(config=actor, model_output={"log_probs": ragged(around)}, data=data)
    return {name: metric.aggregate() for name, metric in metrics.items()}


def test_ages_weighed_by_their_tokens_give_verls_clip_fraction():
    metrics = metrics_of(compose_actor(NO_KL), aged=True)
    fractions = clip_fractions(metrics)
    assert set(fractions) == {0, 2} and 0 < fractions[0] != fractions[2]
    assert (2 * fractions[0] + fractions[2]) / 3 == pytest.approx(metrics["actor/pg_clipfrac"])


def test_without_replay_and_for_advantages_whitened_in_the_loss_nothing_is_counted():
    assert clip_fractions(metrics_of(compose_actor(NO_KL), aged=False)) == {}
    assert clip_fractions(metrics_of(compose_actor(NO_KL, WHITENED), aged=True)) == {}
