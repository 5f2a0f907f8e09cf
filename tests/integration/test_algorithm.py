"""What is registered with verl: the estimator, the loss, and the start-up check."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.integration


def test_estimator_hands_over_what_the_rows_carry():
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    from recipe.spo.algorithm import row_advantages

    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0]])
    carried = torch.tensor([[0.5, 9.0, 0.5, 9.0], [-0.25, -0.25, 0.0, 9.0], [0.5, 0.5, 0.5, 0.5]])  # row 2 is padding
    with row_advantages(carried):
        advantages, returns = get_adv_estimator_fn("spo")(
            token_level_rewards=torch.zeros(3, 3), response_mask=mask, config=None, index=None
        )
    assert advantages.tolist() == [[0.5, 0, 0.5], [-0.25, -0.25, 0], [0, 0, 0]]
    assert torch.equal(advantages, returns)


def test_estimator_refuses_rows_without_advantages():
    from recipe.spo.algorithm import compute_spo_advantage, row_advantages

    with pytest.raises(RuntimeError, match="needs rows from SPO's rollout worker"):
        compute_spo_advantage(torch.zeros(1, 2), torch.ones(1, 2))
    with row_advantages(torch.zeros(2, 2)), pytest.raises(RuntimeError, match="2 rows carry advantages"):
        compute_spo_advantage(torch.zeros(1, 2), torch.ones(1, 2))


def loss_of(mask, batch_num_tokens):
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig

    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, ppo_mini_batch_size=1, clip_ratio_c=1e6
    )
    config.global_batch_info.update(dp_size=1, batch_num_tokens=batch_num_tokens, global_batch_size=2)
    log_prob = torch.tensor([[-1.0, -0.5, -2.0], [-0.1, -3.0, -1.0]], requires_grad=True)
    old = torch.tensor([[-1.5, -0.5, -1.0], [-0.1, -2.0, -1.0]])
    advantages = torch.tensor([[0.5] * 3, [-1.0] * 3])
    loss, _ = get_policy_loss_fn("spo")(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=torch.tensor(mask, dtype=torch.bool),
        loss_agg_mode="token-mean",
        config=config,
    )
    loss.backward()
    return loss.item(), log_prob.grad


def test_loss_is_the_clipped_objective_over_z():
    mask = [[1, 0, 1], [0, 1, 0]]
    # Equation 8 by hand: sum over trained tokens of -min(r A, clip(r, 0.8, 1.2) A), divided by Z.
    ratios = {(0, 0): math.exp(0.5), (0, 2): math.exp(-1.0), (1, 1): math.exp(-1.0)}
    advantage = {0: 0.5, 1: -1.0}
    total = sum(-min(r * advantage[i], min(max(r, 0.8), 1.2) * advantage[i]) for (i, _), r in ratios.items())
    loss, gradient = loss_of(mask, batch_num_tokens=5)  # Z counts the whole optimiser batch, not this micro-batch
    assert loss == pytest.approx(total / 5, rel=1e-5)
    assert gradient[0, 1] == 0 and gradient[1, 0] == 0 and gradient[1, 2] == 0  # masked tokens
    assert gradient[0, 2] == pytest.approx(-0.5 * math.exp(-1.0) / 5, rel=1e-5)


def test_a_step_without_trained_tokens_is_zero_and_not_nan():
    loss, gradient = loss_of([[0, 0, 0], [0, 0, 0]], batch_num_tokens=0)
    assert loss == 0.0 and torch.equal(gradient, torch.zeros_like(gradient))


def test_verls_k3_is_the_papers():
    from verl.trainer.ppo.core_algos import kl_penalty

    log_prob, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0])
    assert kl_penalty(log_prob, reference, "low_var_kl").tolist() == pytest.approx([0.0, math.e - 2])


def test_the_plug_in_registers_everything_with_verl():
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    from recipe.spo.plugin import missing_registrations

    assert missing_registrations() == []
    kept = ADV_ESTIMATOR_REGISTRY.pop("spo")
    try:
        assert missing_registrations() == ["advantage estimator 'spo'"]
    finally:
        ADV_ESTIMATOR_REGISTRY["spo"] = kept


def test_another_verl_version_is_refused(monkeypatch):
    from recipe.spo.compat import versions

    monkeypatch.setattr(versions.metadata, "version", lambda name: "0.8.0")
    with pytest.raises(versions.VersionError, match="verl 0.8.0 is installed, but recipe/spo needs verl 0.9.1"):
        versions.check_verl_version()


def test_eos_ids_come_from_tokenizer_and_generation_config():
    from recipe.spo.rollout.ending import eos_token_ids

    generation = SimpleNamespace(eos_token_id=[2, 5])
    assert eos_token_ids(SimpleNamespace(eos_token_id=1), generation) == {1, 2, 5}
    with pytest.raises(ValueError, match="EOS"):
        eos_token_ids(SimpleNamespace(eos_token_id=None), SimpleNamespace())


def test_nothing_of_the_cpu_platform_is_loaded_on_a_gpu_machine():
    code = "import sys, verl\nfrom verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as known\n"
    code += "print('loaded:', 'spo' in known)\nprint([m for m in sys.modules if m.startswith('recipe.spo.compat')])\n"
    code += "from verl.plugin.platform import PlatformRegistry; print(PlatformRegistry.get('cpu'))"
    environment = {"VERL_PLATFORM": "nvidia", "PATH": "/usr/bin:/bin"}
    out = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment, timeout=120)
    assert "loaded: True" in out
    assert "platform_cpu" not in out and "verl_cpu" not in out and out.strip().endswith("None")
