"""From what was measured to the numbers of the report, every one with an interval.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.spo.bench import accuracy, measuring
from recipe.spo.bench.accuracy import Floats, Statistic
from recipe.spo.bench.gradients import view
from recipe.spo.bench.methods import Method
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
#: What a family is compared in at one budget.
AT_BUDGET = (
    "value_mse",
    "own_value_mse",
    "token_advantage_mse",
    "token_advantage_correlation",
    "sibling_rank_accuracy",
)


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
    drawn = accuracy.draws(len(questions), RESAMPLES, seed)
    longest = max(reference.tokens for question in questions for reference in question.references)
    bins = (longest - 1) // measuring.BIN + 1
    sums = {method.name: sums_of(questions, method, bins, mask_threshold) for method in methods}
    result: dict[str, Any] = {
        "truth": _truth(questions),
        "methods": [_method(method, sums[method.name], drawn) for method in methods],
        "families": _families(methods, sums, drawn, question_tokens),
    }
    if gradients is not None:
        measured = [method for method in methods if method.gradient]
        result["gradients"] = _gradients(measured, questions, gradients, step_tokens, drawn)
    return result


def _truth(questions: Sequence[Measured]) -> dict[str, Any]:
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
    }


def _method(method: Method, sums: Mapping[str, Floats], drawn: Floats) -> dict[str, Any]:
    tokens, trained = sums["cost"].mean(axis=0)
    row: dict[str, Any] = {
        "method": method.name,
        "family": method.family,
        "tokens": float(tokens),
        "trained_tokens": float(trained),
        "drawn": method.drawn,
        "states_without_value": int(sums["missing"].sum()),
    }
    for name, (kind, statistic) in STATISTICS.items():
        # without values there is nothing to compare, without a scale only correlations are meant
        none = not sums[kind][:, -1].any() if kind == "siblings" else not sums[kind][:, 0].any()
        meant = (method.has_scale or name in SCALE_FREE) and not none
        row[name] = accuracy.estimate(sums[kind], statistic, drawn).as_json() if meant else None
    row["own_value_bias_by_position"] = [
        {"from_token": index * measuring.BIN, "states": int(part[:, 0].sum())}
        | accuracy.estimate(part, accuracy.bias, drawn).as_json()
        for index, part in enumerate(np.moveaxis(sums["bins"], 1, 0))
        if part[:, 0].any()
    ]
    return row


def _families(
    methods: Sequence[Method], sums: Mapping[str, Mapping[str, Floats]], drawn: Floats, budget: float
) -> dict[str, Any]:
    """Every family with several sizes at one budget, between its own sizes."""
    found = []
    for family in dict.fromkeys(method.family for method in methods):
        members = [method for method in methods if method.family == family and method.has_scale]
        if len(members) < 2:
            continue
        members.sort(key=lambda method: sums[method.name]["cost"][:, 0].mean())
        weights = np.vstack([np.ones(drawn.shape[1]), drawn])
        cost = np.stack([weights @ sums[m.name]["cost"][:, 0] / weights.sum(axis=1) for m in members], axis=-1)
        row: dict[str, Any] = {"family": family}
        for name in AT_BUDGET:
            kind, statistic = STATISTICS[name]
            values = np.stack([statistic(weights @ sums[m.name][kind]) for m in members], axis=-1)
            level = accuracy.at_budget(cost, values, budget)
            row[name] = accuracy.interval(float(level[0]), level[1:]).as_json()
        found.append(row)
    return {"tokens": budget, "rows": found}


def _gradients(
    methods: Sequence[Method], questions: Sequence[Measured], gradients: Floats, budget: float, drawn: Floats
) -> dict[str, Any]:
    truth = gradients[:, -1, 0].astype(np.float64)
    rows = []
    for index, method in enumerate(methods):
        tokens = np.array([question.tokens[method.name] for question in questions], dtype=np.float64)
        for mask, name in enumerate(MASKS):
            found = view(gradients[:, index, mask].astype(np.float64), truth, tokens, budget, drawn)
            numbers = {key: getattr(found, key).as_json() for key in _VIEW}
            rows.append({"method": method.name, "trains": name, "tokens": found.tokens, **numbers})
    return {"tokens": budget, "rows": rows}


_VIEW = ("signal", "variance", "noise_to_signal", "direction", "cosine", "agreement", "measured_cosine")
