"""Numbers of verl's own settings that would end a run in its middle, or train nothing, checked before it starts.

`algorithm.spo` has its own reader, `recipe.spo.parsing`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.spo.inputs import PreflightError
from recipe.spo.settings import SPOSettings

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number may be.

    Attributes:
        whole: a whole number.
        least, most: inclusive.
        above: exclusive lower limit.
        or_null: null is fine too.
    """

    whole: bool = False
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    or_null: bool = False

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.or_null
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (
            not (self.whole and not isinstance(value, int)) and self.above < value and self.least <= value <= self.most
        )

    def __str__(self) -> str:
        parts = ["a whole number" if self.whole else "a number"]
        if math.isfinite(self.above):
            parts.append(f"above {self.above:g}")
        if math.isfinite(self.least):
            parts.append(f"of at least {self.least:g}")
        if math.isfinite(self.most):
            parts.append(f"of at most {self.most:g}" if len(parts) == 1 else f"and at most {self.most:g}")
        return " ".join(parts) + (", or null" if self.or_null else "")


COUNT = Limit(whole=True, least=1)
LIMITS = {
    "data.train_batch_size": COUNT,
    "data.max_prompt_length": COUNT,
    "data.max_response_length": COUNT,
    "data.seed": Limit(whole=True),
    "trainer.total_epochs": COUNT,
    "trainer.total_training_steps": Limit(whole=True, least=1, or_null=True),
    "trainer.test_freq": Limit(whole=True),
    "trainer.save_freq": Limit(whole=True),
    f"{_ACTOR}.ppo_epochs": COUNT,
    f"{_ACTOR}.ppo_max_token_len_per_gpu": COUNT,
    f"{_ACTOR}.data_loader_seed": Limit(whole=True),
    f"{_ACTOR}.clip_ratio": Limit(above=0),
    f"{_ACTOR}.clip_ratio_low": Limit(above=0),
    f"{_ACTOR}.clip_ratio_high": Limit(above=0),
    f"{_ACTOR}.kl_loss_coef": Limit(least=0),
    f"{_ACTOR}.entropy_coeff": Limit(),
    f"{_ACTOR}.optim.lr": Limit(least=0),
    f"{_ROLLOUT}.temperature": Limit(),  # zero has a message of its own
    f"{_ROLLOUT}.top_p": Limit(above=0, most=1),
    f"{_ROLLOUT}.top_k": Limit(whole=True, least=-1),
    f"{_ROLLOUT}.max_num_seqs": COUNT,
    "algorithm.gamma": Limit(least=0, most=1),
    "algorithm.lam": Limit(least=0, most=1),
}


def check_numbers(config: DictConfig) -> None:
    """Check the numbers of `LIMITS`, as far as the configuration has them.

    Raises:
        PreflightError: naming the key and what it may be.
    """
    absent = object()
    for key, limit in LIMITS.items():
        value = OmegaConf.select(config, key, default=absent, throw_on_missing=True)
        if value is not absent and not limit.allows(value):
            raise PreflightError(f"{key} is {value!r}: it must be {limit}")


def check_trained_policy(config: DictConfig, settings: SPOSettings) -> None:
    """Refuse settings of verl that would replace what `algorithm.spo` asks for without a word.

    Raises:
        PreflightError: naming the key.
    """
    name = OmegaConf.select(config, f"{_ROLLOUT}.name")
    if name not in (None, "vllm"):
        raise PreflightError(f"{_ROLLOUT}.name is {name!r}: segments are sampled with vllm")
    warmup = OmegaConf.select(config, "trainer.critic_warmup")
    if warmup and settings.method != "ppo":
        raise PreflightError(
            f"trainer.critic_warmup is {warmup}: method {settings.method} has no critic, and verl would leave the "
            "policy untrained for so many steps; set it to 0"
        )
    if config.actor_rollout_ref.actor.policy_loss.loss_mode == "vanilla":
        raise PreflightError(
            f"{_ACTOR}.policy_loss.loss_mode is 'vanilla': use 'spo', the same loss, which also bears a batch in "
            "which no token trains"
        )
    correction = OmegaConf.select(config, "algorithm.rollout_correction")
    if not correction:
        return
    where = "algorithm.rollout_correction"
    if settings.as_published_code and (correction.get("rollout_is") or correction.get("rollout_rs")):
        raise PreflightError(
            f"{where}.rollout_is and .rollout_rs: the loss of algorithm.spo.as_published_code has no weights, set "
            "them to null"
        )
    if not correction.get("bypass_mode"):
        return
    if settings.mask_source == "trainer" or settings.as_published_code:
        raise PreflightError(
            f"{where}.bypass_mode is on: the trainer's own probabilities are not computed, but "
            "algorithm.spo.mask_source=trainer and as_published_code need them; set it to False"
        )
    if correction.get("rollout_is") or correction.get("rollout_rs") or correction.get("loss_type") == "reinforce":
        raise PreflightError(
            f"{where}.bypass_mode is on: verl's trainer then corrects nothing; set it to False, or leave out "
            "rollout_is, rollout_rs and loss_type"
        )
