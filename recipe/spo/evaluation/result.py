"""The numbers of a finished evaluation, for JSON and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recipe.spo.evaluation.grading import vote_of
from recipe.spo.rewards.verdict import Reason, Verdict
from recipe.spo.statistics import (
    Estimate,
    bootstrap_means,
    majority_at_k,
    mean_at_n,
    mean_estimate,
    pass_at_k,
    share_estimate,
)

Row = Mapping[str, Any]


def summarise(rows: Sequence[Row], samples: int, ks: Sequence[int], seed: int) -> dict[str, Any]:
    """All numbers of an evaluation, overall and by data source.

    Args:
        rows: a row a response, a question's `samples` rows one after the other.
        samples: n.
        ks: the k of pass@k and maj@k.
        seed: of whatever is drawn.
    """
    sources = sorted({row["data_source"] for row in rows})
    parts = {source: [row for row in rows if row["data_source"] == source] for source in sources}
    result = {"overall": numbers(rows, samples, ks, seed)}
    if len(sources) > 1:
        result["by_data_source"] = {source: numbers(part, samples, ks, seed) for source, part in parts.items()}
    return result


def numbers(rows: Sequence[Row], samples: int, ks: Sequence[int], seed: int) -> dict[str, Any]:
    """The numbers of some questions; see `summarise`."""

    def matrix(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=np.float64).reshape(-1, samples)

    scores, tokens, finished = matrix("score"), matrix("tokens"), matrix("finished")
    votes = [vote_of(Verdict(Reason(row["reason"]), row["answer"])) for row in rows]
    votes = [votes[begin : begin + samples] for begin in range(0, len(votes), samples)]
    mean = scores.mean(axis=1)
    unroomed = sorted({row["question_id"] for row in rows if row["tokens"] == 0 and not row["finished"]})
    reasons = [row["reason"] for row in rows]
    return {
        "questions": len(scores),
        "samples": samples,
        "mean_at_n": {
            **_json(mean_at_n(scores)),
            "bootstrap_standard_error": float(bootstrap_means(mean, seed=seed).std()),
        },
        "pass_at_k": {str(k): _json(share_estimate(pass_at_k(scores, k), samples)) for k in ks},
        "maj_at_k": {str(k): _json(share_estimate(majority_at_k(votes, scores, k, seed), samples)) for k in ks},
        "unfinished": _json(share_estimate(1 - finished.mean(axis=1), samples)),
        "reasons": {str(reason): reasons.count(str(reason)) / len(reasons) for reason in Reason},
        "tokens": {
            **_json(mean_estimate(tokens.mean(axis=1))),
            "of_finished": float(tokens[finished > 0].mean()) if finished.any() else None,
            "longest": int(tokens.max()),
            "total": int(tokens.sum()),
        },
        "prompts_without_room": unroomed,
    }


def _json(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def table(result: Mapping[str, Any]) -> Any:
    """The result as a table for rich."""
    from rich.table import Table

    run, found = result["run"], Table(show_edge=False, pad_edge=False)
    found.title = f"{run['model']['name']} on {run['data']['name']}"
    for heading in ("", "value", "± s.e.", "95 % interval"):
        found.add_column(heading, justify="right" if heading else "left")
    parts = {"": result["overall"], **result.get("by_data_source", {})}
    for source, part in parts.items():
        if source:
            found.add_section()
            found.add_row(source, f"{part['questions']} questions", "", "")
        for name, estimate in _shares(part).items():
            error = estimate["standard_error"]
            interval = f"{estimate['low']:.1%} to {estimate['high']:.1%}"
            found.add_row(name, f"{estimate['value']:.2%}", "-" if error is None else f"{error:.2%}", interval)
        tokens, reasons = part["tokens"], part["reasons"]
        error = tokens["standard_error"]
        found.add_row("response tokens", f"{tokens['value']:.1f}", "-" if error is None else f"{error:.1f}", "")
        for reason, share in reasons.items():
            if share and reason not in (Reason.CORRECT, Reason.UNFINISHED):
                found.add_row(str(reason).replace("_", " "), f"{share:.2%}", "", "")
    return found


def _shares(part: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    n = str(part["samples"])
    passes = {f"pass@{k}": value for k, value in part["pass_at_k"].items() if k != "1"}
    votes = {f"maj@{k}": value for k, value in part["maj_at_k"].items() if k != "1" and (k == n or n == "1")}
    return {f"mean@{n}": part["mean_at_n"], **passes, **votes, "unfinished": part["unfinished"]}


def caption(result: Mapping[str, Any]) -> str:
    """What was done, in a line or two."""
    run, part = result["run"], result["overall"]
    protocol = run["protocol"]
    lines = [
        f"{part['questions']} questions x {protocol['samples']} samples, temperature {protocol['temperature']}, "
        f"top-p {protocol['top_p']}, context {protocol['max_context']}, at most {protocol['max_new_tokens']} new "
        f"tokens, seed {protocol['seed']}, {run['engine']['dtype']}; s.e. clustered by question"
    ]
    unroomed = part["prompts_without_room"]
    if unroomed:
        lines.append(
            f"{len(unroomed)} prompts leave no room for a response within the context and count as unfinished: "
            + ", ".join(unroomed[:5])
            + (", ..." if len(unroomed) > 5 else "")
        )
    return "\n".join(lines)
