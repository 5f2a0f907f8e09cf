"""The folder of a bench: two parts, each with its own fingerprint, each a file a chunk of questions.

`OUT/truth/` holds references and their values, `OUT/rollouts/` what the methods made of them. A part appears chunk by
chunk, whole or not at all; another fingerprint does not go on in the same folder. Other methods need other rollouts,
but not another truth: delete `rollouts/` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import RUN, open_run, refuse_other, replace_file, write_json


class Part:
    """One part of a bench.

    Args:
        folder: made if absent.
        fingerprint: what its numbers depend on, ready for JSON.

    Raises:
        EvaluationError: the folder holds the part of another bench, or cannot be used.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps(fingerprint))
        found = open_run(folder, str(folder), made=folder)
        if found is None:
            write_json(folder / RUN, wanted)
            return
        refuse_other(found, wanted, f"{folder} holds another bench", f"choose another --out, or delete {folder}")

    def has(self, chunk: int) -> bool:
        """Whether a chunk is finished."""
        return self._path(chunk, "json").exists()

    def write(self, chunk: int, rows: list[dict[str, Any]], array: np.ndarray | None = None) -> None:
        """Keep a finished chunk.

        Raises:
            EvaluationError: it cannot be written.
        """
        if array is not None:

            def save(path: Path) -> None:
                with path.open("wb") as file:  # np.save would give the partial file another ending
                    np.save(file, array)

            replace_file(self._path(chunk, "npy"), save)
        write_json(self._path(chunk, "json"), rows)  # last: it says that the chunk is whole

    def read(self, chunk: int) -> list[dict[str, Any]]:
        """A finished chunk.

        Raises:
            EvaluationError: its file is damaged.
        """
        path = self._path(chunk, "json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} is damaged; delete it and run again ({one_line(error)})") from error

    def read_array(self, chunk: int) -> np.ndarray:
        """The array of a finished chunk.

        Raises:
            EvaluationError: its file is damaged.
        """
        path = self._path(chunk, "npy")
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            remedy = f"delete it and {self._path(chunk, 'json').name}, and run again"
            raise EvaluationError(f"{path} is damaged; {remedy} ({one_line(error)})") from error

    def _path(self, chunk: int, suffix: str) -> Path:
        return self.folder / f"{chunk:05d}.{suffix}"
