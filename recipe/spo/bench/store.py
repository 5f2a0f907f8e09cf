"""The folder of a bench: two parts, each with its own fingerprint, each a file a chunk of questions.

`OUT/truth/` holds references and their values, `OUT/rollouts/` what the methods made of them. A part appears chunk by
chunk, whole or not at all; another fingerprint does not go on in the same folder. Other methods need other rollouts,
but not another truth: delete `rollouts/` alone.

The fingerprint does not say which questions there are: each chunk says it of its own. So a bench of more questions goes
on where one of fewer ended, as long as chunks hold the same questions. A chunk of rollouts also says which references
it was made from, since it means nothing with others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import RUN, open_run, refuse_other, replace_file, write_json

#: Of the files; 2: chunks say what they are of, log-probabilities are those after temperature, top-p and top-k.
FORMAT = 2
T = TypeVar("T")


class Part:
    """One part of a bench.

    Args:
        folder: made if absent.
        fingerprint: what its numbers depend on but the questions, ready for JSON.

    Raises:
        EvaluationError: the folder holds the part of another bench, or cannot be used.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps({"format": FORMAT, **fingerprint}))
        found = open_run(folder, str(folder), made=folder)
        if found is None:
            write_json(folder / RUN, wanted)
            return
        remedy = f"choose another --out, or delete {folder}"
        if found.get("format") != FORMAT:
            raise EvaluationError(f"{folder} was made by another version of the bench; {remedy}")
        refuse_other(found, wanted, f"{folder} holds another bench", remedy)

    def has(self, chunk: int) -> bool:
        """Whether a chunk is finished."""
        return self.path(chunk).exists()

    def write(
        self, chunk: int, of: Mapping[str, str], rows: list[dict[str, Any]], array: np.ndarray | None = None
    ) -> None:
        """Keep a finished chunk.

        Args:
            chunk: its number.
            of: name -> digest of what it was made from.
            rows: one a question, ready for JSON.
            array: kept beside them.

        Raises:
            EvaluationError: it cannot be written.
        """
        if array is not None:

            def save(path: Path) -> None:
                with path.open("wb") as file:  # np.save would give the partial file another ending
                    np.save(file, array)

            replace_file(self.path(chunk, "npy"), save)
        write_json(self.path(chunk), {"of": dict(of), "rows": rows})  # last: it says that the chunk is whole

    def read(self, chunk: int, of: Mapping[str, str], parse: Callable[[Any], T]) -> T:
        """A finished chunk.

        Args:
            chunk: its number.
            of: what it must have been made from.
            parse: makes of the rows what is wanted; whatever it raises, the file is damaged.

        Raises:
            EvaluationError: its file is damaged, or made from something else.
        """
        path = self.path(chunk)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            made_from, rows = dict(found["of"]), found["rows"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise EvaluationError(f"{path} is damaged; delete it and run again ({_reason(error)})") from error
        other = [name for name in sorted({*made_from, *of}) if made_from.get(name) != of.get(name)]
        if other:
            raise EvaluationError(
                f"{path} was made from other {' and '.join(other)} than this bench has; delete it and run again, or "
                "choose another --out"
            )
        try:
            return parse(rows)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise EvaluationError(f"{path} is damaged; delete it and run again ({_reason(error)})") from error

    def read_array(self, chunk: int, shape: tuple[int, ...]) -> np.ndarray:
        """The array of a finished chunk.

        Args:
            chunk: its number.
            shape: what its shape must begin with; one more axis, of any length, follows.

        Raises:
            EvaluationError: its file is damaged.
        """
        path = self.path(chunk, "npy")
        try:
            found = np.load(path, allow_pickle=False)
            if found.shape[:-1] != shape or not np.isfinite(found).all():
                raise ValueError(f"numbers of shape {(*shape, 'any')} are wanted, there are {found.shape}")
        except (OSError, ValueError, TypeError, EOFError) as error:
            remedy = f"delete it and {self.path(chunk).name}, and run again"
            raise EvaluationError(f"{path} is damaged; {remedy} ({_reason(error)})") from error
        return found

    def path(self, chunk: int, suffix: str = "json") -> Path:
        """The file of a chunk."""
        return self.folder / f"{chunk:05d}.{suffix}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
