"""Benches on the Markov chain of `test_markov`, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipe.spo.bench.methods import Method, chain_methods, group_methods, other_rules, tree_methods
from recipe.spo.bench.rolling import Sampling
from recipe.spo.bench.run import Bench, Settings
from recipe.spo.bench.store import Part
from recipe.spo.settings import ChainSettings, TreeSettings
from tests.unit.chain_policy import ChainClient, ChainGradient, problems
from tests.unit.test_markov import EOS, IMPROBABLE

SAMPLING = Sampling({}, frozenset({EOS}), IMPROBABLE, lambda ids: "")
SETTINGS = Settings(seed=3, responses=2, continuations=24, tolerance=0.0, mask_threshold=IMPROBABLE, chunk=50)


def all_methods() -> list[Method]:
    """One of every kind, small."""
    chain = ChainSettings(3, 0, "low_probability", cut_interval=1)
    trees = tree_methods("tree", [(2, 3), (6, 6)], TreeSettings((6, 6), 3), (2, 3))
    cut = TreeSettings((2, 3), 4, "low_probability", 1)
    groups = group_methods([4, 8], 4)
    return [
        *(replace(method, gradient=True) if method.name == "leave-one-out, 4" else method for method in groups),
        *chain_methods("chain", chain, [1, 4], [4]),
        *trees,
        *other_rules(trees[:1], 2.0),
        *tree_methods("cut-point tree", [(2, 3)], cut, (2, 3)),
    ]


def bench(
    folder: Path,
    methods: Sequence[Method],
    number: int = 150,
    settings: Settings = SETTINGS,
    client=ChainClient,
    gradient=ChainGradient,
    truth: str = "truth",
    rollouts: str = "rollouts",
) -> Bench:
    """A bench of so many equal questions."""
    return Bench(
        problems(number),
        methods,
        settings,
        SAMPLING,
        Part(folder / "truth", {"of": truth}),
        Part(folder / "rollouts", {"of": rollouts}),
        client,
        gradient,
    )
