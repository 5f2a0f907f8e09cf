"""Which runs there are, in which order, and the command of each.

A run ends with the first step after which it has generated `budget` tokens (`algorithm.spo.token_budget`). All runs of
a variant start from the same policy and data. Shapes are those of `examples/run_tiny_arithmetic.sh`; the number of
questions a step differs between methods, so that each generates about `TOKENS_A_STEP` tokens a step with the policy
that it starts from, and takes about as many optimiser steps for the budget as the others. The learning rate is
constant after a few steps of warm-up, so that nothing depends on when a run will end.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.errors import LearningError
from examples.demo import METHODS as TITLES
from examples.demo import Task

TUNE, MAIN = "tune", "main"
PHASES = (TUNE, MAIN)
#: What all others are compared with: the paper's own ablation, SPO's mask without its credit.
BASELINE = "grpo-mask"
RATE_KEY = "actor_rollout_ref.actor.optim.lr"

BUDGET = 600_000
TUNE_BUDGET = 200_000
TOKENS_A_STEP = 14_000
#: About so many validations after the one before training.
VALIDATIONS = {TUNE: 4, MAIN: 8}
PROBLEMS = 512
DEMO_RATE = 1e-4
#: The demo's rate is for problems of half the length; three times of it makes every method worse on the hard ones.
GRID = (2e-5, 6e-5, 2e-4)
#: Of the runs that choose learning rates; no other run has it.
TUNE_SEED = 100
#: Steps until the learning rate is what it stays. Adam's first updates are as long as the rate allows, whatever they
#: are worth: without this, GRPO + mask at 6e-5 lost 7 points in its first 8 updates.
WARMUP_STEPS = 6
#: verl wants a number of steps: more than any budget lasts.
MOST_STEPS = 500

LABEL = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Variant:
    """A task, and what differs with its length.

    Attributes:
        name: in folders and on the command line.
        task: problems and start policy.
        questions: a step, by method of `examples.demo.METHODS`.
        seeds: of its runs, unless the command line says otherwise.
    """

    name: str
    task: Task
    questions: Mapping[str, int]
    seeds: tuple[int, ...]


GROUPS = ("grpo", "grpo-mask", "rloo", "ppo")
#: By name, in the order in which they run.
VARIANTS = {
    "hard": Variant(
        "hard",
        Task(min_steps=8, max_steps=10, fit=("--steps", "600", "--target", "0.33", "--check-every", "5")),
        {**dict.fromkeys(GROUPS, 18), "vineppo": 6, "chain": 10, "tree": 10},
        (0, 1, 2),
    ),
    "easy": Variant("easy", Task(), {**dict.fromkeys(GROUPS, 30), "vineppo": 15, "chain": 26, "tree": 19}, (0,)),
}
TUNE_VARIANT = "hard"


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the demo, or a variation of one.

    Attributes:
        label: in folders and on the command line.
        title: in tables and pictures.
        base: name in `examples.demo.METHODS`.
        overrides: of verl, on top of everything else.
        rate: learning rate that is not to be tuned; None: it is.
    """

    label: str
    title: str
    base: str
    overrides: tuple[str, ...] = ()
    rate: float | None = None


METHODS = {
    label: Method(label, TITLES[label], label)
    for label in ("grpo", "grpo-mask", "rloo", "ppo", "vineppo", "chain", "tree")
}


def parse_method(text: str) -> Method:
    """Read `LABEL=METHOD key=value ...`: a method with overrides of its own.

    Raises:
        LearningError: it cannot be read, or takes the name of a method that there is.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise LearningError(f"--method {text!r}: {error}") from None
    label, _, base = (words or [""])[0].partition("=")
    if not LABEL.fullmatch(label) or base not in METHODS:
        raise LearningError(
            f"--method {text!r}: write LABEL=METHOD key=value ..., LABEL of small letters, digits, dots and dashes, "
            f"METHOD one of {', '.join(METHODS)}"
        )
    if label in METHODS:
        raise LearningError(f"--method {text!r}: {label} is a method already; choose another label")
    overrides, rate = [], None
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise LearningError(f"--method {label}: {word!r} is not key=value")
        if key == RATE_KEY:
            rate = parse_rate(value, f"--method {label}: {RATE_KEY}")
        else:
            overrides.append(word)
    return Method(label, label, base, tuple(overrides), rate)


def parse_rate(text: str, name: str) -> float:
    """Read a learning rate.

    Raises:
        LearningError: it is no number above 0.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise LearningError(f"{name}: {text!r} is not a number above 0")
    return rate


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        phase: `TUNE` or `MAIN`.
        variant: of the task.
        method: what trains.
        seed: of the order of the questions, of sampling, and of what trains together in an optimiser step.
        rate: learning rate.
        budget: generated tokens that end it.
    """

    phase: str
    variant: Variant
    method: Method
    seed: int
    rate: float
    budget: int

    @property
    def path(self) -> Path:
        """Its folder in the folder of the bench."""
        path = Path(self.phase, self.variant.name, self.method.label, f"seed{self.seed}")
        return path / f"lr{self.rate:g}" if self.phase == TUNE else path

    @property
    def title(self) -> str:
        return f"{self.variant.name}, {self.method.title}, seed {self.seed}, learning rate {self.rate:g}"

    @property
    def questions(self) -> int:
        return self.variant.questions[self.method.base]

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        return max(1, round(self.budget / TOKENS_A_STEP / VALIDATIONS[self.phase]))

    @property
    def environment(self) -> dict[str, str]:
        """What `run_tiny_arithmetic.sh` reads, but for places."""
        return {
            "METHOD": self.method.base,
            "QUESTIONS": str(self.questions),
            "LR": f"{self.rate:g}",
            "STEPS": str(MOST_STEPS),
        }

    @property
    def overrides(self) -> list[str]:
        """What the script passes on to verl."""
        return [
            f"algorithm.spo.token_budget={self.budget}",
            f"data.seed={self.seed}",
            f"actor_rollout_ref.rollout.seed={self.seed}",
            f"actor_rollout_ref.actor.data_loader_seed={self.seed}",
            f"critic.data_loader_seed={self.seed}",
            "actor_rollout_ref.actor.optim.lr_scheduler_type=constant",
            f"actor_rollout_ref.actor.optim.lr_warmup_steps={WARMUP_STEPS}",
            "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.0",  # the critic's too: it has none
            f"trainer.test_freq={self.validate_every}",
            "trainer.save_freq=-1",
            *self.method.overrides,
        ]

    def settings(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """All that its numbers depend on; a finished run of other settings is another run.

        Args:
            start: what is known of data and policy.
        """
        return {
            "phase": self.phase,
            "variant": self.variant.name,
            "label": self.method.label,
            "title": self.method.title,
            "method": self.method.base,
            "seed": self.seed,
            "learning_rate": self.rate,
            "token_budget": self.budget,
            "environment": self.environment,
            "overrides": self.overrides,
            "start": dict(start),
        }


def tuning_runs(methods: Sequence[Method], grid: Sequence[float], budget: int) -> list[Run]:
    """The runs that choose learning rates: every rate of every method that does not bring its own."""
    variant = VARIANTS[TUNE_VARIANT]
    return [
        Run(TUNE, variant, method, TUNE_SEED, rate, budget)
        for method in methods
        if method.rate is None
        for rate in grid
    ]


def main_runs(
    variants: Sequence[Variant],
    seeds: Sequence[int] | None,
    methods: Sequence[Method],
    rates: Mapping[str, float],
    budget: int,
) -> list[Run]:
    """The runs that are compared: variant by variant, seed by seed, all methods.

    Args:
        variants: of the task, in this order.
        seeds: of every variant; None: each variant's own.
        methods: what trains.
        rates: label -> learning rate; a method without one has no run.
        budget: generated tokens of a run.
    """
    return [
        Run(MAIN, variant, method, seed, rates[method.label], budget)
        for variant in variants
        for seed in (variant.seeds if seeds is None else seeds)
        for method in methods
        if method.label in rates
    ]
