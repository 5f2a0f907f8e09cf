"""verl's real FSDP2 engine: the loss of an optimiser step does not depend on how it is cut up."""

from __future__ import annotations

import pytest

from tests.integration import torchrun

pytestmark = pytest.mark.integration


def split_results(model, ranks: int, *overrides: str) -> list[dict[str, float]]:
    return torchrun.results_of("tests.integration.engine_child", model, ranks, *overrides, timeout=300)


def test_loss_and_gradient_do_not_depend_on_micro_batches_ranks_or_padding(policy):
    """Micro-batches of 1, 4 and 8 rows on one rank, of 1, 2 and 4 on two; two of the eight rows are padding.

    The reference are the six rows without padding.
    """
    one, two = split_results(policy, ranks=1), split_results(policy, ranks=2)
    assert [r["split"] for r in one] == [1, 4, 8, 6]
    assert [r["split"] for r in two] == [1, 2, 4]
    reference = one[-1]
    assert abs(reference["loss"]) > 1e-3 and reference["grad_norm"] > 1e-3  # there is something to agree on
    for result in one + two:
        assert result["loss"] == pytest.approx(reference["loss"], abs=1e-5)
        assert result["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "override",
    ["actor_rollout_ref.model.use_remove_padding=true", "actor_rollout_ref.actor.fsdp_config.offload_policy=true"],
)
@pytest.mark.slow
def test_settings_for_gpus_change_neither_loss_nor_gradient(policy, override):
    """Packed rows, which attend by a mask, and shards in host memory: `hardware=` sets both."""
    reference, results = split_results(policy, 1)[-1], split_results(policy, 2, override)
    for result in results:
        assert result["loss"] == pytest.approx(reference["loss"], abs=1e-5)
        assert result["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_adapters_train_and_begin_as_the_model(policy):
    reference, (result, *_) = split_results(policy, 1)[-1], split_results(policy, 2, "lora=on")
    assert result["loss"] == pytest.approx(reference["loss"], abs=1e-5)  # their second matrix is zero
    assert result["grad_norm"] > 1e-3 and result["grad_norm"] != pytest.approx(reference["grad_norm"], rel=1e-2)
