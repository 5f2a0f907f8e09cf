"""Evaluation result files as cells of a table.

Of the `result.json` that `recipe.spo.evaluate` writes, this is used:

    {"run": {"model": {"name": "m"}, "data": {"name": "HuggingFaceH4/MATH-500"},
             "protocol": {"max_context": 2048, "temperature": 0.6, "top_p": 0.95},
             "grader": {"function": "package.module:function", "options": {"task": "math"}}},
     "overall": {"questions": 500, "samples": 4, "mean_at_n": {"value": 0.566, "standard_error": 0.012},
                 "unfinished": {"value": 0.1}, "tokens": {"value": 812.3}}}
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

#: The same problems under several names: letters and digits of the last part of a name -> how it is printed.
DATA_NAMES = {
    "math500": "MATH-500",
    "aime24": "AIME 2024",
    "aime2024": "AIME 2024",
    "aime25": "AIME 2025",
    "aime2025": "AIME 2025",
    "gsm8k": "GSM8K",
}


class ResultError(ValueError):
    """A result file cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table, with how it came about.

    Attributes:
        model: row of the table.
        data: name of the data set.
        context: tokens of prompt and response together.
        mean: accuracy, a fraction.
        standard_error: of the mean, a fraction; None where none is known.
        questions: how many the mean is over.
        n: samples a question.
        temperature: sampling temperature.
        top_p: nucleus of the sampling.
        grader: what compared answers; empty where it is not said.
        source: file or publication that the number is from.
        unfinished: share of samples that hit the limit; None for published numbers.
        mean_length: mean tokens of a sample; None for published numbers.
        published: a published number, not ours.
    """

    model: str
    data: str
    context: int
    mean: float
    standard_error: float | None
    questions: int
    n: int
    temperature: float
    top_p: float
    grader: str
    source: str
    unfinished: float | None = None
    mean_length: float | None = None
    published: bool = False


def read_named(argument: str) -> Cell:
    """Read the result that `result.json`, its folder or `LABEL=result.json` names.

    Args:
        argument: a file or a folder with `result.json`, with what its model is to be called; an `=` in the name
            of a file is no label's.

    Returns:
        Its cell.

    Raises:
        ResultError: the file cannot be used (see `read_result`), or the label or the file is left out.
    """
    label, equals, name = argument.partition("=")
    if not equals or Path(argument).exists():
        return read_result(Path(argument))
    if not label.strip() or not name:
        raise ResultError(f"{argument!r} is not LABEL=result.json: say what the model is called in the table")
    return replace(read_result(Path(name)), model=label.strip())


def read_result(path: Path) -> Cell:
    """Read a result file.

    Args:
        path: JSON file, or the folder of an evaluation.

    Returns:
        Its cell.

    Raises:
        ResultError: the file is missing, is not JSON, lacks a field or holds an impossible one.
    """
    if path.is_dir():
        path = path / "result.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ResultError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from None
    fields = _Fields(path, content)
    mean = fields.number("overall.mean_at_n.value")
    if not 0 <= mean <= 1:
        raise ResultError(f"{path}: overall.mean_at_n.value is {mean:g}; it is a fraction between 0 and 1")
    return Cell(
        model=fields.text("run.model.name"),
        data=data_name(fields.text("run.data.name")),
        context=fields.count("run.protocol.max_context"),
        mean=mean,
        standard_error=fields.optional_number("overall.mean_at_n.standard_error"),
        questions=fields.count("overall.questions"),
        n=fields.count("overall.samples"),
        temperature=fields.number("run.protocol.temperature"),
        top_p=fields.number("run.protocol.top_p"),
        grader=fields.text("run.grader.function") + fields.options("run.grader.options"),
        source=str(path),
        unfinished=fields.number("overall.unfinished.value"),
        mean_length=fields.number("overall.tokens.value"),
    )


def data_name(name: str) -> str:
    """How a data set is printed: known names in one spelling, others as they are.

    Args:
        name: a name such as `HuggingFaceH4/MATH-500`.

    Returns:
        `MATH-500`, say.
    """
    return DATA_NAMES.get(re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower()), name)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields of a result by dotted name; what is missing or of the wrong kind is said with file and name."""

    path: Path
    content: Any

    def _find(self, name: str) -> Any:
        value = self.content
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def _wrong(self, name: str, wanted: str) -> ResultError:
        value = self._find(name)
        if value is None:
            return ResultError(f"{self.path} lacks {name}")
        return ResultError(f"{self.path}: {name} is {value!r}, not {wanted}")

    def text(self, name: str) -> str:
        value = self._find(name)
        if not isinstance(value, str) or not value:
            raise self._wrong(name, "a name")
        return value

    def number(self, name: str) -> float:
        value = self._find(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(name, "a number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        return None if self._find(name) is None else self.number(name)

    def options(self, name: str) -> str:
        chosen = self._find(name) or {}
        if not isinstance(chosen, dict):
            raise self._wrong(name, "a mapping")
        return f" ({', '.join(f'{key}={value}' for key, value in chosen.items())})" if chosen else ""

    def count(self, name: str) -> int:
        value = self.number(name)
        if value < 1 or value != int(value):
            raise self._wrong(name, "a whole number above 0")
        return int(value)
