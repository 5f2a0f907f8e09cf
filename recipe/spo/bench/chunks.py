"""Chunks of questions: what identifies them, and what their files must hold.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recipe.spo.bench.credited import CreditedSegments, Segment
from recipe.spo.bench.problem import Problem
from recipe.spo.bench.truth import Reference


@dataclass(frozen=True, slots=True)
class Row:
    """What the methods made of a question, each by the method's name.

    Attributes:
        tokens: generated.
        trained: tokens below the mask's threshold whose advantage is not 0.
        segments: of each reference.
    """

    tokens: dict[str, int]
    trained: dict[str, int]
    segments: dict[str, list[CreditedSegments]]


def questions_digest(problems: Sequence[Problem]) -> str:
    """SHA-256 of what a chunk's truth depends on but the policy."""
    parts = [[each.id, list(each.prompt_ids), each.budget, each.digest] for each in problems]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def references_digest(references: Sequence[Sequence[Reference]]) -> str:
    """SHA-256 of a chunk's references with their values."""
    rows = [[reference.as_json() for reference in each] for each in references]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def parse_references(rows: Any, questions: int, responses: int) -> list[list[Reference]]:
    """A chunk's references from JSON.

    Raises:
        ValueError, KeyError, TypeError: it is none, or of another number of questions or responses.
    """
    _require(isinstance(rows, list) and len(rows) == questions, f"{questions} questions are wanted")
    _require(all(isinstance(row, list) and len(row) == responses for row in rows), f"{responses} references each")
    return [[Reference.from_json(each) for each in row] for row in rows]


def parse_rows(rows: Any, questions: int, responses: int, methods: Sequence[str]) -> list[Row]:
    """A chunk's rollouts from JSON.

    Raises:
        ValueError, KeyError, TypeError: it is none, of another number of questions or responses, or lacks a method.
    """
    _require(isinstance(rows, list) and len(rows) == questions, f"{questions} questions are wanted")
    return [_row(row, responses, methods) for row in rows]


def _row(row: Any, responses: int, methods: Sequence[str]) -> Row:
    counts = [{name: row[kind][name] for name in methods} for kind in ("tokens", "trained")]
    _require(all(type(count) is int and count >= 0 for kind in counts for count in kind.values()), "counts of tokens")
    segments = {name: [[_segment(part) for part in one] for one in row["segments"][name]] for name in methods}
    _require(all(len(each) == responses for each in segments.values()), f"segments of {responses} references")
    return Row(*counts, segments)


def _segment(found: Any) -> Segment:
    part = Segment(*found)
    _require(type(part.begin) is int and type(part.end) is int and 0 <= part.begin < part.end, f"no segment: {found}")
    _require(math.isfinite(part.advantage), f"no segment: {found}")
    _require(all(value is None or math.isfinite(value) for value in part[3:]), f"no segment: {found}")
    return part


def _require(good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(wanted)
