"""The clip fraction by age, against verl's own loss."""

from __future__ import annotations

import pytest
import torch

from recipe.spo.compat.aged_loss import AGE_FIELD, clip_counts, clip_fractions

#: Ratio, advantage, trained, age: one token a column.
RATIO = torch.tensor([[1.5, 1.5, 0.5, 0.5], [1.0, 1.5, 0.5, 1.5]])
ADVANTAGE = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, 1.0]])
TRAINED = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
AGE = torch.tensor([[0, 0, 0, 0], [2, 2, 2, 2]])


def rows(old: torch.Tensor) -> dict:
    return {"old_log_probs": old, "advantages": ADVANTAGE, "response_mask": TRAINED, AGE_FIELD: AGE}


def counts() -> dict:
    old = torch.zeros_like(RATIO)
    return clip_counts(RATIO.log(), rows(old), oldest=2, low=0.2, high=0.2)


def test_tokens_are_clipped_where_the_gradient_would_go_on():
    metrics = {"other": 1.0, **counts()}
    # Age 0: ratio up with A > 0, and ratio down with A < 0; age 2: two of three; age 1: no row.
    assert clip_fractions(metrics) == {0: 0.5, 2: pytest.approx(2 / 3)}
    assert metrics == {"other": 1.0}


def test_every_age_is_named_in_every_micro_batch():
    assert len(counts()) == 2 * 3


def test_over_all_ages_it_is_verls_clip_fraction():
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    config = OmegaConf.create(
        {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 1e6, "global_batch_info": {}}
    )
    _, theirs = compute_policy_loss_vanilla(
        old_log_prob=torch.zeros_like(RATIO),
        log_prob=RATIO.log(),
        advantages=ADVANTAGE,
        response_mask=TRAINED,
        loss_agg_mode="token-mean",
        config=config,
    )
    ours = counts()
    clipped = sum(n for name, n in ours.items() if "clipped" in name)
    assert clipped / sum(n for name, n in ours.items() if "tokens" in name) == pytest.approx(
        theirs["actor/pg_clipfrac"]
    )
