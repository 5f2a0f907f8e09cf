"""From what was measured to the numbers of the report, every one with an interval.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.spo.bench import accuracy, measuring
from recipe.spo.bench.gradients import NUMBERS, view
from recipe.spo.bench.intervals import Floats, Statistic, draws, estimate
from recipe.spo.bench.levels import Level, at_budget, difference
from recipe.spo.bench.methods import GROUP, Method
from recipe.spo.bench.open_variance import by_position
from recipe.spo.bench.run import Measured
from recipe.spo.bench.weighting import MASKS

RESAMPLES = 2000
#: name -> (sums, statistic); of advantages without a scale only those in `SCALE_FREE` are meant.
STATISTICS: Mapping[str, tuple[str, Statistic]] = {
    "value_mse": ("states", accuracy.mean_squared_error),
    "value_worth": ("states_worth", accuracy.ratio),
    "own_value_mse": ("own", accuracy.mean_squared_error),
    "own_value_worth": ("own_worth", accuracy.ratio),
    "own_value_bias": ("own", accuracy.bias),
    "segment_advantage_mse": ("segments", accuracy.mean_squared_error),
    "segment_advantage_correlation": ("segments", accuracy.correlation),
    "token_advantage_mse": ("tokens", accuracy.mean_squared_error),
    "token_advantage_correlation": ("tokens", accuracy.correlation),
    "sibling_rank_accuracy": ("siblings", accuracy.ratio),
}
SCALE_FREE = ("segment_advantage_correlation", "token_advantage_correlation")
#: What a family is measured by at one budget.
AT_BUDGET = (
    "value_mse",
    "own_value_mse",
    "token_advantage_mse",
    "token_advantage_correlation",
    "sibling_rank_accuracy",
)
#: What is the same question to every method: own states and segments are others for each.
SHARED = ("value_mse", "token_advantage_mse", "token_advantage_correlation", "sibling_rank_accuracy")
#: Rules on the same rollouts have those in common, too.
SAME_ROLLOUTS = ("value_mse", "own_value_mse", *SCALE_FREE, "token_advantage_mse")

Levels = Mapping[str, Level | None]
Shown = dict[str, dict[str, float | None] | None]


def sums_of(questions: Sequence[Measured], method: Method, bins: int, mask_threshold: float) -> dict[str, Floats]:
    """Sums of each question, by kind; see `measuring`."""
    found: dict[str, list[Any]] = {}
    for question in questions:
        references, credited = question.references, question.segments[method.name]
        states, worth, missing = measuring.state_sums(references, credited)
        own, by_bin, own_worth = measuring.own_sums(references, credited, bins)
        parts = {
            "states": states,
            "states_worth": worth,
            "missing": [missing],
            "own": own,
            "own_worth": own_worth,
            "bins": by_bin,
            "segments": measuring.segment_sums(references, credited),
            "tokens": measuring.token_sums(references, credited, mask_threshold),
            "siblings": measuring.sibling_sums(references, credited),
            "cost": [question.tokens[method.name], question.trained[method.name]],
        }
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
    return {name: np.array(part, dtype=np.float64) for name, part in found.items()}


def analyse(
    questions: Sequence[Measured],
    methods: Sequence[Method],
    gradients: Floats | None,
    mask_threshold: float,
    question_tokens: float,
    step_tokens: float,
    seed: int,
) -> dict[str, Any]:
    """All numbers.

    Args:
        questions: what was measured.
        methods: of what.
        gradients: see `Bench.gradients`, or None.
        mask_threshold: rho.
        question_tokens: budget of a question at which families are compared.
        step_tokens: budget of a step at which gradients are compared.
        seed: of the bootstrap.
    """
    drawn = draws(len(questions), RESAMPLES, seed)
    longest = max(reference.tokens for question in questions for reference in question.references)
    bins = (longest - 1) // measuring.BIN + 1
    sums = {method.name: sums_of(questions, method, bins, mask_threshold) for method in methods}
    levels = {method.name: _levels(method, sums[method.name]) for method in methods}
    families = _Families(methods, {name: float(part["cost"][:, 0].mean()) for name, part in sums.items()}, levels)
    result: dict[str, Any] = {
        "truth": _truth(questions, sums[methods[0].name]["siblings"]),
        "open": by_position([question.references for question in questions], measuring.BIN, drawn),
        "methods": [_method(method, sums[method.name], levels, families, drawn) for method in methods],
        "families": {"tokens": question_tokens, "rows": families.rows(question_tokens, drawn)},
    }
    if gradients is not None:
        measured = [method for method in methods if method.gradient]
        result["gradients"] = _gradients(measured, questions, gradients, step_tokens)
    return result


def _truth(questions: Sequence[Measured], siblings: Floats) -> dict[str, Any]:
    references = [reference for question in questions for reference in question.references]
    values = [value for reference in references for value in reference.values]
    errors = [error for reference in references for error in reference.errors]
    return {
        "questions": len(questions),
        "responses": len(references),
        "mean_tokens": float(np.mean([reference.tokens for reference in references])),
        "mean_reward": float(np.mean([reference.node.reward for reference in references])),
        "states": len(values),
        "continuations": references[0].continuations,
        "mean_value": float(np.mean(values)),
        "root_mean_squared_standard_error": float(np.sqrt(np.mean(errors))),
        "sibling_pairs": int(siblings[:, 1].sum()),
        "sibling_questions": int(np.count_nonzero(siblings[:, 1])),
    }


def _levels(method: Method, sums: Mapping[str, Floats]) -> Levels:
    """Every number of a method; None where there is nothing to compare, or no scale to compare it in."""
    found: dict[str, Level | None] = {}
    for name, (kind, statistic) in STATISTICS.items():
        compared = sums[kind][:, -1 if kind == "siblings" else 0].any()
        meant = compared and (method.has_scale or name in SCALE_FREE)
        found[name] = Level(sums[kind], statistic) if meant else None
    return found


def _shown(levels: Levels, drawn: Floats) -> Shown:
    return {name: None if level is None else level.interval(drawn).as_json() for name, level in levels.items()}


def _minus(one: Levels, other: Levels, names: Sequence[str]) -> Levels:
    """Differences of what both have."""
    pairs = {name: (one.get(name), other.get(name)) for name in names}
    return {name: difference(a, b) if a is not None and b is not None else None for name, (a, b) in pairs.items()}


def _method(
    method: Method, sums: Mapping[str, Floats], levels: Mapping[str, Levels], families: _Families, drawn: Floats
) -> dict[str, Any]:
    tokens, trained = sums["cost"].mean(axis=0)
    row: dict[str, Any] = {
        "method": method.name,
        "family": method.family,
        "tokens": float(tokens),
        "trained_tokens": float(trained),
        "drawn": method.drawn,
        "states_without_value": int(sums["missing"].sum()),
        **_shown(levels[method.name], drawn),
    }
    row["own_value_bias_by_position"] = [
        {"from_token": index * measuring.BIN, "states": int(part[:, 0].sum())}
        | estimate(part, accuracy.bias, drawn).as_json()
        for index, part in enumerate(np.moveaxis(sums["bins"], 1, 0))
        if part[:, 0].any()
    ]
    group = families.at(GROUP, float(tokens)) if method.family != GROUP else {}
    row["minus_group"] = _shown(_minus(levels[method.name], group, SHARED), drawn)
    rival = levels.get(method.rival or "", {})
    row["rival"] = method.rival
    row["minus_rival"] = _shown(_minus(levels[method.name], rival, SAME_ROLLOUTS), drawn)
    return row


class _Families:
    """Families of methods, which have numbers at every budget between their sizes.

    Args:
        methods: of all families.
        tokens: mean tokens a question, by method.
        levels: numbers, by method.
    """

    def __init__(self, methods: Sequence[Method], tokens: Mapping[str, float], levels: Mapping[str, Levels]) -> None:
        self._tokens, self._levels = tokens, levels
        self._members: dict[str, list[Method]] = {}
        for method in methods:
            self._members.setdefault(method.family, []).append(method)
        for members in self._members.values():
            members.sort(key=lambda method: tokens[method.name])

    def at(self, family: str, budget: float) -> Levels:
        """A family's numbers at a budget; empty if its one size is of another."""
        members = self._members[family]
        if members[0].one_size:
            return self._levels[members[0].name]
        tokens, found = [self._tokens[method.name] for method in members], {}
        for name in AT_BUDGET:
            sizes = [self._levels[method.name][name] for method in members]
            if all(level is not None for level in sizes):
                found[name] = at_budget(sizes, tokens, budget, name.endswith("mse"))
        return found

    def rows(self, budget: float, drawn: Floats) -> list[dict[str, Any]]:
        """Every family that has several sizes, or is the same at every one."""
        group, found = self.at(GROUP, budget), []
        for family, members in self._members.items():
            if len(members) < 2 and not members[0].one_size:
                continue
            levels = self.at(family, budget)
            row = {"family": family, **_shown({name: levels.get(name) for name in AT_BUDGET}, drawn)}
            minus = _minus(levels, group, SHARED) if family != GROUP else {}
            found.append({**row, "minus_group": _shown(minus, drawn)})
        return found


def _gradients(
    methods: Sequence[Method], questions: Sequence[Measured], gradients: Floats, budget: float
) -> dict[str, Any]:
    truth = gradients[:, -1, 0].astype(np.float64)
    rows = []
    for index, method in enumerate(methods):
        tokens = np.array([question.tokens[method.name] for question in questions], dtype=np.float64)
        trained = np.array([question.trained[method.name] for question in questions], dtype=np.float64)
        for mask, name in enumerate(MASKS):
            found = view(gradients[:, index, mask].astype(np.float64), truth, tokens, trained, budget)
            numbers = {key: getattr(found, key).as_json() for key in NUMBERS}
            if not method.has_scale:
                numbers["step_variance"] = None
            rows.append({"method": method.name, "trains": name, "tokens": found.tokens, **numbers})
    return {"tokens": budget, "rows": rows}
