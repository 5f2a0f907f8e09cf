"""The questions of an evaluation, from the parquet files that training reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line

DEFAULT_SPLIT = "test"
COLUMNS = ("data_source", "prompt", "reward_model")


@dataclass(frozen=True, slots=True)
class Question:
    """A question.

    Attributes:
        id: `data_source/split/index`; names the question in every result.
        data_source: chooses the grader.
        messages: the prompt as chat messages.
        truth: the right answer.
        text: the problem alone where the data has it apart from its prompt, else the prompt.
    """

    id: str
    data_source: str
    messages: tuple[dict[str, str], ...]
    truth: str
    text: str

    @property
    def digest(self) -> str:
        """Names the problem and its answer, whatever prompt stands around it."""
        return _digest([self.text, self.truth])


def data_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of everything that the responses and their grades depend on."""
    return _digest([[q.id, q.data_source, list(q.messages), q.truth] for q in questions])


def read_questions(data: Path, split: str | None = None, limit: int | None = None) -> list[Question]:
    """Reads the questions.

    Args:
        data: a parquet file, or a folder with `<split>.parquet`.
        split: the file in the folder, by default `test`; with a file it must be that file's.
        limit: so many questions from the beginning; all if None.

    Raises:
        EvaluationError: the file is absent or unreadable, lacks a column, holds a row that cannot
            be used, or nothing at all.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"--limit {limit} must be at least 1")
    path = data / f"{split or DEFAULT_SPLIT}.parquet" if data.is_dir() else data
    if not path.is_file():
        remedy = "make it with one of the data_prep commands, such as python -m data_prep.gsm8k --out data/gsm8k"
        raise EvaluationError(f"--data: {path} does not exist; {remedy}")
    if path == data and split not in (None, data.stem):
        raise EvaluationError(
            f"--split {split} would be ignored, as --data {data} is a file; leave it out or name the folder"
        )
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise EvaluationError(f"--data: {path} is not a readable parquet file: {one_line(error)}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise EvaluationError(f"--data: {path} has no column {missing[0]!r}; verl's columns are {', '.join(COLUMNS)}")
    rows = table.slice(0, limit).to_pylist()
    if not rows:
        raise EvaluationError(f"--data: {path} holds no question")
    questions = [_question(row, number, path) for number, row in enumerate(rows)]
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise EvaluationError(f"--data: {path} holds {question.id} twice; extra_info.index must be unique")
        seen.add(question.id)
    return questions


def _question(row: dict[str, Any], number: int, path: Path) -> Question:
    try:
        messages = tuple({"role": str(m["role"]), "content": str(m["content"])} for m in row["prompt"])
        truth, source = row["reward_model"]["ground_truth"], row["data_source"]
        if not messages or truth is None or source is None:
            raise ValueError("prompt, ground truth or data source is empty")
    except (KeyError, TypeError, ValueError) as error:
        problem = f"no {error.args[0]!r}" if isinstance(error, KeyError) else one_line(error)
        raise EvaluationError(f"--data: {path} row {number}: {problem}") from error
    info = row.get("extra_info") or {}
    index = info.get("index")
    name = f"{source}/{info.get('split') or path.stem}/{number if index is None else index}"
    text = info.get("question") or "\n".join(message["content"] for message in messages)
    return Question(name, str(source), messages, str(truth), text)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8")).hexdigest()
