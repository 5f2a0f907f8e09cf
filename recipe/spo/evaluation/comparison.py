"""Compares finished evaluations question by question."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import RESPONSES, RESULT, differences, short
from recipe.spo.statistics import paired_bootstrap

#: What may differ although the questions are the same; the model is what is compared.
PARTS = ("protocol", "grader", "engine")
PROMPTS = "prompts_sha256"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished evaluation.

    Attributes:
        label: as the user named it.
        run: its fingerprint.
        means: mean score by question.
        digests: digest of problem and answer by question.
    """

    label: str
    run: dict[str, Any]
    means: dict[str, float]
    digests: dict[str, str]


def load(path: Path) -> Finished:
    """Reads a finished evaluation.

    Args:
        path: its folder, or the result.json in it.

    Raises:
        EvaluationError: there is none, or it is not finished.
    """
    folder = path.parent if path.name == RESULT else path
    if not (folder / RESULT).is_file() or not (folder / RESPONSES).is_file():
        raise EvaluationError(f"{folder} holds no finished evaluation; run `python -m recipe.spo.evaluate run` first")
    import pyarrow.parquet as pq

    try:
        run = _run_of(json.loads((folder / RESULT).read_text(encoding="utf-8")))
        rows = pq.read_table(folder / RESPONSES, columns=["question_id", "question_digest", "score"]).to_pylist()
    except (OSError, ValueError, RecursionError) as error:  # pyarrow's errors are ValueErrors
        raise EvaluationError(f"{folder} cannot be read: {one_line(error)}") from error
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["question_id"], []).append(row["score"])
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    return Finished(str(folder), run, means, {row["question_id"]: row["question_digest"] for row in rows})


def _run_of(result: Any) -> dict[str, Any]:
    run = result.get("run") if isinstance(result, dict) else None
    data = run.get("data") if isinstance(run, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ValueError(f"{RESULT} says not what was evaluated (run.data.name); it is no result of an evaluation")
    return run


def compare(results: Sequence[Finished], seed: int = 0) -> list[dict[str, Any]]:
    """Compares every two results by a paired bootstrap over the questions of both.

    Raises:
        EvaluationError: fewer than two results, one given twice, or two without a question in common or with another
            problem or answer under the same name.
    """
    if len(results) < 2:
        raise EvaluationError("a comparison needs two results or more")
    places = [Path(result.label).resolve() for result in results]
    twice = [result.label for result, place in zip(results, places, strict=True) if places.count(place) > 1]
    if twice:
        raise EvaluationError(f"{twice[0]} is given twice; a comparison needs different results")
    return [_pair(first, second, seed) for first, second in combinations(results, 2)]


def _pair(first: Finished, second: Finished, seed: int) -> dict[str, Any]:
    common = [name for name in first.means if name in second.means]
    names = [f"{result.run['data']['name']} ({len(result.means)} questions)" for result in (first, second)]
    if not common:
        raise EvaluationError(f"{first.label} and {second.label} have no question in common: {names[0]} and {names[1]}")
    other = [name for name in common if first.digests[name] != second.digests[name]]
    if other:
        raise EvaluationError(
            f"{first.label} and {second.label} are of different data: {len(other)} of {len(common)} questions "
            f"differ in problem or answer, the first one {other[0]}"
        )
    before, after = ([result.means[name] for name in common] for result in (first, second))
    difference, _ = paired_bootstrap(before, after, seed=seed)
    return {
        "first": first.label,
        "second": second.label,
        "questions": len(common),
        "left_out": [len(result.means) - len(common) for result in (first, second)],
        "first_mean": math.fsum(before) / len(common),
        "second_mean": math.fsum(after) / len(common),
        "difference": {key: None if math.isnan(value) else value for key, value in asdict(difference).items()},
        "differ_in": [
            {"key": key, "first": one, "second": other}
            for key, one, other in differences(_conditions(first.run), _conditions(second.run))
        ],
    }


def _conditions(run: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: run.get(part, {}) for part in PARTS}
    return {"data": {PROMPTS: run["data"].get(PROMPTS)}, **parts}


def table(pairs: Sequence[dict[str, Any]]) -> Any:
    """The comparison as a table for rich; results have letters, as in `legend`."""
    from rich.table import Table

    letters = _letters(pairs)
    found = Table(show_edge=False, pad_edge=False, title="paired over questions")
    for heading in ("", "questions", "means", "difference", "± s.e.", "95 % interval", "p"):
        found.add_column(heading, justify="right" if heading else "left")
    for pair in pairs:
        difference, error = pair["difference"], pair["difference"]["standard_error"]
        found.add_row(
            f"{letters[pair['second']]} - {letters[pair['first']]}",
            str(pair["questions"]),
            f"{pair['second_mean']:.1%}, {pair['first_mean']:.1%}",
            f"{difference['value']:+.2%}",
            "-" if error is None else f"{error:.2%}",
            "-" if difference["low"] is None else f"{difference['low']:+.1%} to {difference['high']:+.1%}",
            f"{difference['p_value']:.4f}",
        )
    return found


def legend(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """Which letter is which result."""
    return [f"{letter}  {label}" for label, letter in _letters(pairs).items()]


def _letters(pairs: Sequence[dict[str, Any]]) -> dict[str, str]:
    labels = dict.fromkeys(pair[side] for pair in pairs for side in ("first", "second"))
    return {label: chr(ord("A") + i) if i < 26 else f"#{i}" for i, label in enumerate(labels)}


def notes(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader of the comparison must know: each difference in how it came about, and questions left out."""
    letters, listed = _letters(pairs), []
    for pair in pairs:
        where = f"{letters[pair['first']]} and {letters[pair['second']]}"
        if any(pair["left_out"]):
            listed.append(f"{where}: {pair['left_out'][0]} and {pair['left_out'][1]} questions are in one only")
        for found in pair["differ_in"]:
            what = f"{where} differ in {found['key']}: {short(found['first'])} and {short(found['second'])}"
            why = (
                " (other questions, instruction, chat template or tokenizer)" if found["key"].endswith(PROMPTS) else ""
            )
            listed.append(what + why)
    return listed
