"""`algorithm.spo.share_prefixes`: what is refused, when it is worthwhile, what both ways may differ by, its metrics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from recipe.spo.parsing import SHARE_PREFIXES
from recipe.spo.preflight import PreflightError
from recipe.spo.reader import SettingsError
from recipe.spo.sharing import (
    COUNTS,
    DIFFERENCE,
    MODES,
    PREFIX,
    SHAPE,
    SharingError,
    Tally,
    check_agreement,
    check_gradients,
    check_model,
    differences,
    sharing_metrics,
    worthwhile,
)
from recipe.spo.sharing_checks import check_sharing
from tests.unit.test_settings import settings

LLAMA = {"attention_dropout": 0.0, "_attn_implementation": "sdpa", **dict.fromkeys(SHAPE, 8)}


def test_it_is_off_until_somebody_asks():
    assert settings().share_prefixes == "off"
    assert SHARE_PREFIXES == MODES
    # YAML reads these without quotes as booleans.
    assert [settings(share_prefixes=value).share_prefixes for value in (True, False, "auto")] == ["on", "off", "auto"]
    with pytest.raises(SettingsError, match="share_prefixes is 'maybe': choose one of off, auto, on"):
        settings(share_prefixes="maybe")


def test_whitening_by_micro_batch_would_depend_on_what_shares():
    with pytest.raises(SettingsError, match="share_prefixes is 'on': normalize=micro_batch"):
        settings(share_prefixes="on", normalize="micro_batch")
    published = {"as_published_code": True, "mask_source": "trainer"}  # its micro-batches are given
    assert settings(share_prefixes="on", normalize="micro_batch", **published).share_prefixes == "on"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model.use_fused_kernels", True, "use_fused_kernels is on"),
        ("model.override_config.attn_implementation", "eager", "attn_implementation is 'eager'"),
        ("actor.strategy", "fsdp", "actor.strategy is 'fsdp'"),
        ("ref.strategy", "megatron", "ref.strategy is 'megatron'"),
        ("actor.ulysses_sequence_parallel_size", 2, "ulysses_sequence_parallel_size"),
        ("actor.fsdp_config.pad_to_length", True, "pad_to_length is on"),
        ("actor.calculate_sum_pi_squared", True, "calculate_sum_pi_squared is on"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(key, value, complaint):
    part = {"strategy": "fsdp2", "ulysses_sequence_parallel_size": 1, "fsdp_config": {"pad_to_length": False}}
    model = {"use_fused_kernels": False, "override_config": {"attn_implementation": "sdpa"}}
    config = OmegaConf.create({"actor_rollout_ref": {"model": model, "actor": part, "ref": part}})
    check_sharing(config, settings(share_prefixes="on"))
    OmegaConf.update(config, f"actor_rollout_ref.{key}", value)
    check_sharing(config, settings())
    with pytest.raises(PreflightError, match=f"{complaint}.*share_prefixes=off"):
        check_sharing(config, settings(share_prefixes="on"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"attention_dropout": 0.1}, "dropout"),
        ({"resid_pdrop": 0.1, "attn_pdrop": 0.2}, "dropout .attn_pdrop=0.2, resid_pdrop=0.1."),
        ({"num_key_value_heads": None}, "has no num_key_value_heads"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"sliding_window": 4096}, "a sliding window"),
        ({"_attn_implementation": "flash_attention_2"}, "only 'sdpa' takes the mask"),
    ],
)
def test_models_that_cannot_share_are_refused(changes, complaint):
    with pytest.raises(SharingError, match=complaint):
        check_model(SimpleNamespace(**{**LLAMA, **changes}), on_gpu=False)


@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_gpt2_is_refused_when_it_is_loaded(rate):
    """And not at the first batch, by an attribute that its configuration lacks."""
    from transformers import GPT2Config

    config = GPT2Config(attn_pdrop=rate, resid_pdrop=rate, embd_pdrop=rate, attn_implementation="sdpa")
    with pytest.raises(SharingError, match="dropout" if rate else "has no intermediate_size, num_key_value_heads"):
        check_model(config, on_gpu=False)


def test_models_that_can_share_are_not():
    check_model(SimpleNamespace(**LLAMA), on_gpu=False)
    check_model(SimpleNamespace(**{**LLAMA, "_attn_implementation": "flash_attention_2"}), on_gpu=True)
    # Qwen2 has a window in its configuration that it does not use.
    qwen = {"sliding_window": 4096, "use_sliding_window": False, "layer_types": ["full_attention"]}
    check_model(SimpleNamespace(**LLAMA, **qwen), on_gpu=False)


def test_auto_wants_a_gain_and_on_does_not():
    assert worthwhile("auto", 90.0, 100.0) and not worthwhile("auto", 97.0, 100.0)
    assert worthwhile("on", 200.0, 100.0)


def test_the_check_allows_rounding_and_nothing_else():
    ours = torch.tensor([-1.0, -2.0, -3.0])
    largest, mean = differences(ours, ours + torch.tensor([0.0, 0.0003, 0.0]))
    assert largest == pytest.approx(0.0003, rel=1e-3) and mean == pytest.approx(0.0001, rel=1e-3)
    check_agreement(largest, mean, torch.float32)
    check_agreement(0.5, 0.02, torch.bfloat16)
    for wrong in (
        (0.01, 0.001, torch.float32),
        (0.5, 0.2, torch.bfloat16),
        (float("nan"), float("nan"), torch.float32),
    ):
        with pytest.raises(SharingError, match="share_prefixes=off"):
            check_agreement(*wrong)
    with pytest.raises(SharingError, match="packed rows that share nothing.*by their positions"):
        check_agreement(0.01, 0.001, torch.float32, tries=False)
    check_gradients(1e-5, torch.float32)
    check_gradients(0.1, torch.bfloat16)
    for difference, dtype in ((0.05, torch.float32), (0.5, torch.bfloat16), (float("nan"), torch.float32)):
        with pytest.raises(SharingError, match="backward pass is wrong.*share_prefixes=off"):
            check_gradients(difference, dtype)


def test_a_tally_starts_anew_when_taken():
    tally = Tally()
    tally.add(100, 40)
    tally.add(10, 10)
    assert tally.take() == (110, 50) and tally.take() == (0, 0)


def test_metrics_are_ratios_of_what_was_counted():
    counted = dict(zip(COUNTS, (300.0, 100.0, 75.0, 30.0, 200.0, 50.0), strict=True)) | {DIFFERENCE: 2e-6}
    metrics = {"actor/loss": 1.0, **{PREFIX + name: value for name, value in counted.items()}}
    assert sharing_metrics(metrics) == {
        "spo/shared_prefixes/update_ratio": 3.0,
        "spo/shared_prefixes/possible_ratio": 4.0,
        "spo/shared_prefixes/log_prob_ratio": 4.0,
        "spo/shared_prefixes/fallback_share": 0.1,
        "spo/shared_prefixes/check_difference": 2e-6,
    }
    assert metrics == {"actor/loss": 1.0}
    assert sharing_metrics({"actor/loss": 1.0}) == {}


def test_without_log_prob_passes_nothing_was_computed_twice():
    """`rollout_correction.bypass_mode` and no reference: there are none."""
    metrics = {PREFIX + name: 0.0 for name in (*COUNTS, DIFFERENCE)}
    assert sharing_metrics(metrics)["spo/shared_prefixes/log_prob_ratio"] == 1.0
