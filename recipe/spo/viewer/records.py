"""Reading the questions of a dump: a folder that `algorithm.spo.dump_dir` named, or one of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from recipe.spo.dump import CHAINS, ROWS, TREES
from recipe.spo.viewer.errors import ViewError
from recipe.spo.viewer.fields import Fields
from recipe.spo.viewer.questions import Question, question_of

#: Steps and questions that a message names at most.
LISTED = 20


def read_questions(dump: Path, step: int | None = None, question: str | None = None) -> list[Question]:
    """Read a dump's questions, by step.

    Args:
        dump: folder or file.
        step: of this training step only.
        question: of this one only: the data set's index, or the beginning of its uid.

    Raises:
        ViewError: there is nothing to read, a record cannot be used, or nothing is left.
    """
    records = [record for file in files_of(dump) for record in _lines(file)]
    if not records:
        raise ViewError(f"{dump} holds no question yet: its files have no finished line; wait for the run's next dump")
    questions = [
        question_of(record)
        for record in records
        if (step is None or record.whole("step") == step)
        and (question is None or record.text("index") == question or record.text("uid").startswith(question))
    ]
    if not questions:
        asked = " and ".join(
            f"{option} {value}" for option, value in (("--step", step), ("--question", question)) if value is not None
        )
        raise ViewError(f"{dump} has no question with {asked}: it has {_held(records)}")
    return sorted(questions, key=lambda one: (one.step, one.index, one.uid))


def _held(records: list[Fields]) -> str:
    """Steps and questions of a dump, the first of many."""
    steps = sorted({record.whole("step") for record in records})
    indices = list(dict.fromkeys(record.text("index") for record in records))
    listed = ((name, [str(value) for value in values]) for name, values in (("steps", steps), ("questions", indices)))
    return " and ".join(
        f"the {name} {', '.join(values[:LISTED])}{', ...' if len(values) > LISTED else ''}" for name, values in listed
    )


def files_of(dump: Path) -> list[Path]:
    """The files with trees and chains.

    Raises:
        ViewError: there is none.
    """
    if dump.is_file():
        if dump.name.startswith(ROWS):
            raise ViewError(f"{dump} holds trained rows; give a trees-*.jsonl or chains-*.jsonl, or the folder")
        return [dump]
    if not dump.is_dir():
        raise ViewError(f"{dump} does not exist: give the folder that algorithm.spo.dump_dir named")
    files = sorted(file for kind in (TREES, CHAINS) for file in dump.glob(f"{kind}-*.jsonl"))
    if not files:
        raise ViewError(f"{dump} holds no trees-*.jsonl or chains-*.jsonl: run with algorithm.spo.dump_dir={dump}")
    return files


def _lines(file: Path) -> Iterator[Fields]:
    """The records of a file; a last line that is not finished, because the run goes on, is left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ViewError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n")[:-1], 1):
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ViewError(f"{where}: not JSON ({error})") from None
        except RecursionError:
            raise ViewError(f"{where}: JSON that is nested too deeply for a dumped question") from None
        yield Fields(where, record)
