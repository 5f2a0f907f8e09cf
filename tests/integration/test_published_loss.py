"""verl's own `ppo_loss` with the losses that SPO registers, against the plain transcription in `reference_rules`.

What is checked is what an optimiser step descends on: losses and gradients added up over micro-batches and averaged
over ranks, as verl's engine does, KL term included. No model: the log-probs are the leaf.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit import reference_rules as theirs

pytestmark = pytest.mark.integration

ROWS, WIDTH, KL_COEF = 3, 7, 0.1  # rows of a micro-batch, its width; a KL term that is large enough to be seen
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


def compose_actor(*overrides: str):
    """The actor's configuration as shipped, but for these overrides; refused ones fail here."""
    import verl  # noqa: F401  # loads the plug-in, and with it the CPU platform
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass

    from recipe.spo.algorithm import policy_loss_name
    from recipe.spo.parsing import settings_of
    from recipe.spo.preflight import check_verl_settings

    actor = "actor_rollout_ref.actor"
    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose("spo_trainer", overrides=[f"{actor}.kl_loss_coef={KL_COEF}", *overrides])
    OmegaConf.resolve(config)
    settings = settings_of(config, config.data.max_response_length)
    check_verl_settings(config, settings)
    config.actor_rollout_ref.actor.policy_loss.loss_mode = policy_loss_name(
        settings.normalize, settings.as_published_code
    )
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


SUM_OF_KL = "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum"
WHITENED = "algorithm.spo.normalize=micro_batch"


@pytest.fixture(scope="module")
def published():
    fixed = [
        "actor_rollout_ref.actor.use_dynamic_bsz=False",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={ROWS}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={ROWS}",
        f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={ROWS}",
        "algorithm.spo.mask_source=trainer",
    ]
    return compose_actor("algorithm.spo.as_published_code=True", WHITENED, SUM_OF_KL, *fixed)


def micro_batch(seed: int, moved: float = 0.3) -> dict[str, torch.Tensor]:
    """Rows of different lengths; row 0 has two unsure tokens at least, the last row none."""
    rng = np.random.default_rng(seed)
    lengths = [WIDTH, *rng.integers(1, WIDTH, ROWS - 1)]
    response = np.arange(WIDTH) < np.array(lengths)[:, None]
    old = np.log(np.where(rng.random((ROWS, WIDTH)) < 0.4, 0.95, rng.uniform(0.05, 0.85, (ROWS, WIDTH))))
    old[0, :2], old[-1] = np.log(0.5), np.log(0.95)
    rows = {"response": response, "old_log_probs": old, "advantages": np.tile(rng.normal(size=(ROWS, 1)), WIDTH)}
    rows["log_probs"] = old + rng.normal(scale=moved, size=old.shape)
    rows["ref_log_probs"] = rows["log_probs"] + rng.normal(scale=0.3, size=old.shape)  # far from verl's own clamps
    return {name: torch.tensor(array) for name, array in rows.items()}


def leaves_of(batches: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """The log-probs of each micro-batch as leaves."""
    return [rows["log_probs"].clone().requires_grad_() for rows in batches]


def ragged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def verl_loss(
    actor, batches: list[dict[str, torch.Tensor]], leaves: list[torch.Tensor], ranks: int = 1
) -> torch.Tensor:
    """What an optimiser step of verl descends on: micro-batches added up, ranks averaged."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import ppo_loss

    masks = [theirs.training_mask(rows["response"], rows["old_log_probs"]) for rows in batches]
    total = torch.zeros((), dtype=torch.float64)
    for rows, mask, leaf in zip(batches, masks, leaves, strict=True):
        lengths = rows["response"].sum(dim=1).tolist()

        def cut(values: torch.Tensor, lengths: list[int] = lengths) -> list[torch.Tensor]:
            return [row[:n] for row, n in zip(values, lengths, strict=True)]

        fields = {"old_log_probs": rows["old_log_probs"], "ref_log_prob": rows["ref_log_probs"], "response_mask": mask}
        fields["advantages"] = rows["advantages"] * mask
        data = TensorDict({name: ragged(cut(values)) for name, values in fields.items()}, batch_size=len(lengths))
        data["prompts"] = ragged([torch.ones(2, dtype=torch.long)] * len(lengths))
        data["responses"] = ragged(cut(torch.ones_like(mask, dtype=torch.long)))
        tu.assign_non_tensor(
            data,
            dp_size=ranks,
            batch_num_tokens=int(sum(mask.sum() for mask in masks)),
            global_batch_size=sum(len(mask) for mask in masks),
        )
        # A model gives the log-prob of a token at the place before it: a prompt of two, then all but the last place.
        around = [torch.cat([row.new_zeros(1), row, row.new_zeros(1)]) for row in cut(leaf)]
        loss, _ = ppo_loss(config=actor, model_output={"log_probs": ragged(around)}, data=data)
        total = total + loss / ranks
    return total


def assert_same(ours: torch.Tensor, our_leaves: list, expected: torch.Tensor, their_leaves: list) -> None:
    """Equal losses and equal gradients of every log-prob; and not all of them zero."""
    ours.backward()
    expected.backward()
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    for one, other in zip(our_leaves, their_leaves, strict=True):
        torch.testing.assert_close(one.grad, other.grad, **TOLERANCE)
    assert max(leaf.grad.abs().max() for leaf in their_leaves) > 1e-3


def with_leaves(batches: list[dict[str, torch.Tensor]], leaves: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    return [{**rows, "log_probs": leaf} for rows, leaf in zip(batches, leaves, strict=True)]


def whole(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """All rows of an optimiser step as one."""
    return {name: torch.cat([rows[name] for rows in batches]) for name in batches[0]}


def paper_loss(batches: list[dict[str, torch.Tensor]], *, whiten: bool = False) -> torch.Tensor:
    """Policy term over the trained tokens of the whole step, KL summed over each row and averaged over all rows."""
    for rows in batches if whiten else ():
        mask = theirs.training_mask(rows["response"], rows["old_log_probs"])
        rows["advantages"] = theirs.whitened(rows["advantages"], mask, rows["response"])
    rows = whole(batches)
    mask = theirs.training_mask(rows["response"], rows["old_log_probs"])
    policy = theirs.policy_term(rows["log_probs"], rows["old_log_probs"], rows["advantages"], mask)
    return policy + KL_COEF * theirs.kl_term(rows["log_probs"], rows["ref_log_probs"], mask)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("moved", [0.05, 0.5])  # hardly a ratio is clipped; many are
def test_published_loss_is_the_average_of_their_micro_batches(published, moved, ranks):
    batches = [micro_batch(seed, moved) for seed in range(4)]
    ours, reference = leaves_of(batches), leaves_of(batches)
    expected = theirs.accumulated_loss(with_leaves(batches, reference), KL_COEF)
    assert_same(verl_loss(published, batches, ours, ranks), ours, expected, reference)


def test_a_micro_batch_of_too_large_a_ratio_counts_nothing_its_kl_term_included(published):
    batches = [micro_batch(seed) for seed in range(3)]
    batches[1]["log_probs"] = batches[1]["old_log_probs"] + 3.0  # a ratio of 20 on every token
    batches[1]["ref_log_probs"] = batches[1]["log_probs"] + 0.3
    ours, reference = leaves_of(batches), leaves_of(batches)
    expected = theirs.accumulated_loss(with_leaves(batches, reference), KL_COEF)
    assert_same(verl_loss(published, batches, ours), ours, expected, reference)


def test_beyond_ten_a_token_verl_cuts_the_kl_term_off_and_they_do_not(published):
    rows = micro_batch(0)
    rows["ref_log_probs"] = rows["log_probs"] + 3.0  # k3 = exp(3) - 4 = 16.1
    ours, reference = leaves_of([rows]), leaves_of([rows])
    expected = theirs.accumulated_loss(with_leaves([rows], reference), KL_COEF)
    trained = theirs.training_mask(rows["response"], rows["old_log_probs"]).sum()
    excess = KL_COEF * (np.exp(3.0) - 4.0 - 10.0) * trained / ROWS
    torch.testing.assert_close(verl_loss(published, [rows], ours), expected - excess, **TOLERANCE)


def test_spo_averages_tokens_of_the_whole_batch_while_kl_is_summed_over_each_row():
    batches = [micro_batch(seed) for seed in range(4)]
    ours, reference = leaves_of(batches), leaves_of(batches)
    expected = paper_loss(with_leaves(batches, reference))
    assert_same(verl_loss(compose_actor(SUM_OF_KL), batches, ours), ours, expected, reference)


def test_spo_whitened_is_spo_on_advantages_whitened_over_each_micro_batch():
    batches = [micro_batch(seed) for seed in range(4)]
    ours, reference = leaves_of(batches), leaves_of(batches)
    expected = paper_loss(with_leaves(batches, reference), whiten=True)
    assert_same(verl_loss(compose_actor(SUM_OF_KL, WHITENED), batches, ours), ours, expected, reference)
