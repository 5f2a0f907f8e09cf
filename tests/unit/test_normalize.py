"""Whitening, and the policy loss as the authors coded it: worked by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.normalize import whiten
from recipe.spo.published import published_policy_loss


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def constant_rows(*values_and_lengths: tuple[float, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one advantage each, and a mask of so many trained tokens."""
    width = max(n for _, n in values_and_lengths)
    advantages = table(*([a] * width for a, _ in values_and_lengths))
    return advantages, table(*([1.0] * n + [0.0] * (width - n) for _, n in values_and_lengths))


# --- whitening -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 75])
def test_two_rows_of_equal_length_become_plus_and_minus_one(n):
    # deviations +-0.2 each n times, unbiased variance 2n * 0.04 / (2n - 1)
    expected = math.sqrt((2 * n - 1) / (2 * n))
    for pair, sign in [((0.5, 0.1), 1), ((-0.5, -0.1), -1)]:
        white = whiten(*constant_rows((pair[0], n), (pair[1], n)))
        assert white[0].tolist() == pytest.approx([sign * expected] * n, rel=1e-6)
        assert white[1].tolist() == pytest.approx([-sign * expected] * n, rel=1e-6)


def test_two_rows_of_unequal_length_become_the_roots_of_their_ratio():
    white = whiten(*constant_rows((0.9, 150), (0.1, 50)))
    assert white[0, 0].item() == pytest.approx(0.576, abs=5e-4)  # about sqrt(50 / 150) = 0.577
    assert white[1, 0].item() == pytest.approx(-1.728, abs=5e-4)  # about -sqrt(150 / 50) = -1.732


def test_equal_advantages_become_zero():
    assert whiten(*constant_rows((0.3, 4), (0.3, 2))).abs().max().item() < 1e-9


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_set_of_at_most_one_token_is_all_zeros(tokens):
    mask = table([0.0, tokens, 0.0])
    assert whiten(table([5.0, -3.0, 2.0]), mask).tolist() == [[0.0, 0.0, 0.0]]


def test_masked_tokens_are_zero_and_do_not_count():
    white = whiten(table([1.0, 1e6], [-1.0, -7.0]), table([1, 0], [1, 0]))
    assert white.tolist() == [pytest.approx([math.sqrt(0.5), 0.0]), pytest.approx([-math.sqrt(0.5), 0.0])]


def test_a_mask_of_whole_numbers_or_truth_values_does():
    advantages, mask = constant_rows((0.5, 3), (0.1, 2))
    for kind in (torch.int64, torch.bool):
        assert torch.equal(whiten(advantages, mask.to(kind)), whiten(advantages, mask))


@given(st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=2, max_size=30))
def test_whitening_equals_the_textbook(tokens):
    trained = [a / 8 for a, trains in tokens if trains]
    white = whiten(table([a / 8 for a, _ in tokens]), table([float(trains) for _, trains in tokens]))[0].tolist()
    assert all(math.isfinite(a) for a in white)
    if len(trained) > 1:
        center, spread = statistics.mean(trained), math.sqrt(statistics.variance(trained) + 1e-8)
        expected = [(a / 8 - center) / spread * trains for a, trains in tokens]
        assert white == pytest.approx(expected, abs=1e-6)


# --- the published policy loss -------------------------------------------------------------------

# Two tokens with A = (0.5, 0.1) are whitened to (w, -w), w = sqrt(1/2).
W = math.sqrt(0.5)
PAIR, BOTH = table([0.5], [0.1]), table([1.0], [1.0])


def loss_of(ratios: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip_ratio: float = 0.2):
    """Loss, metrics and gradient with respect to the log-probabilities, for given ratios."""
    old = torch.full_like(ratios, -1.0)
    new = (old + ratios.log()).requires_grad_()
    loss, metrics, _ = published_policy_loss(new, old, advantages, mask, clip_ratio)
    loss.backward()
    return loss.item(), metrics, new.grad


def test_on_policy_the_loss_is_zero_and_the_gradient_is_minus_the_whitened_advantage():
    loss, metrics, gradient = loss_of(table([1.0], [1.0]), PAIR, BOTH)
    assert loss == pytest.approx(0.0) and metrics == {"actor/pg_clipfrac": 0.0, "actor/ppo_kl": 0.0}
    assert gradient.flatten().tolist() == pytest.approx([-W / 2, W / 2], abs=1e-6)


def test_ratios_within_the_clip_range_enter_as_they_are():
    loss, metrics, _ = loss_of(table([1.1], [0.9]), PAIR, BOTH)
    assert loss == pytest.approx((-1.1 * W + 0.9 * W) / 2, abs=1e-6)
    assert metrics["actor/pg_clipfrac"] == 0.0


def test_gains_beyond_the_clip_range_are_clipped_and_have_no_gradient():
    loss, metrics, gradient = loss_of(table([1.5], [0.5]), PAIR, BOTH)
    assert loss == pytest.approx((-1.2 * W + 0.8 * W) / 2, abs=1e-6)  # 1.5 -> 1.2 for A > 0, 0.5 -> 0.8 for A < 0
    assert metrics["actor/pg_clipfrac"] == 1.0
    assert gradient.flatten().tolist() == [0.0, 0.0]


def test_losses_beyond_the_clip_range_are_not_clipped():
    loss, metrics, gradient = loss_of(table([0.5], [1.5]), PAIR, BOTH)
    assert loss == pytest.approx((-0.5 * W + 1.5 * W) / 2, abs=1e-6)
    assert metrics["actor/pg_clipfrac"] == 0.0
    assert gradient.flatten().tolist() == pytest.approx([-0.5 * W / 2, 1.5 * W / 2], abs=1e-6)


def test_the_kl_metric_is_the_mean_of_minus_log_ratio_over_trained_tokens():
    ratios, mask = table([2.0, 9.0], [0.5, 9.0], [math.e, 9.0]), table([1, 0], [1, 0], [1, 0])
    _, metrics, _ = loss_of(ratios, table([1.0, 0.0], [0.0, 0.0], [0.0, 0.0]), mask)
    assert metrics["actor/ppo_kl"] == pytest.approx(-1 / 3)  # log 2 + log 1/2 + 1 = 1


def test_the_loss_divides_by_the_trained_tokens_of_this_micro_batch():
    wide = table([0.5, 7.0, 7.0], [0.1, 7.0, 7.0]), table([1, 0, 0], [1, 0, 0])
    loss, _, gradient = loss_of(table([1.1, 3.0, 0.1], [0.9, 3.0, 0.1]), *wide)
    assert loss == pytest.approx(loss_of(table([1.1], [0.9]), PAIR, BOTH)[0])
    assert gradient[:, 1:].abs().max().item() == 0.0  # masked tokens move nothing
    assert gradient[:, 0].abs().min().item() > 0


def test_a_mean_ratio_of_more_than_ten_counts_nothing():
    advantages, mask = table([0.5, 0.0], [0.1, 0.0]), table([1, 0], [1, 0])
    loss, _, gradient = loss_of(table([1.0, 1.0], [19.1, 1.0]), advantages, mask)  # mean 10.05 over trained tokens
    assert loss == 0.0 and gradient.abs().max().item() == 0.0


def test_a_mean_ratio_below_ten_counts_in_full():
    loss, _, _ = loss_of(table([1.0], [18.9]), PAIR, BOTH)  # mean 9.95; A < 0, so the large ratio is not clipped
    assert loss == pytest.approx((-1.0 * W + 18.9 * W) / 2, abs=1e-5)


def test_masked_ratios_do_not_count_in_the_mean_ratio():
    loss, _, _ = loss_of(table([1.1, 1e3], [0.9, 1e3]), table([0.5, 0.0], [0.1, 0.0]), table([1, 0], [1, 0]))
    assert loss == pytest.approx(-0.2 * W / 2, abs=1e-6)


def test_log_ratios_are_limited_to_ten():
    _, metrics, _ = loss_of(table([math.exp(-12)], [1.0]), PAIR, BOTH)
    assert metrics["actor/ppo_kl"] == pytest.approx(5.0)


def test_a_micro_batch_without_trained_tokens_is_zero_and_no_nan():
    loss, metrics, gradient = loss_of(table([1.5, 0.5]), table([0.5, 0.1]), table([0, 0]))
    assert loss == 0.0 and gradient.tolist() == [[0.0, 0.0]]
    assert metrics == {"actor/pg_clipfrac": 0.0, "actor/ppo_kl": 0.0}


def test_a_micro_batch_with_one_trained_token_is_zero_and_no_nan():
    loss, _, gradient = loss_of(table([1.5, 0.5]), table([0.5, 0.1]), table([1, 0]))
    assert loss == 0.0 and gradient.tolist() == [[0.0, 0.0]]
