"""The folder of a bench: two parts, each with its own fingerprint, each a file a chunk of questions.

`OUT/truth/` holds references and their values, `OUT/rollouts/` what the methods made of them. A part appears chunk by
chunk, whole or not at all; another fingerprint does not go on in the same folder. Other methods need other rollouts,
but not another truth: delete `rollouts/` alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import check_folder, differences, short, write_json

RUN = "run.json"


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
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / RUN).exists():
                found = json.loads((folder / RUN).read_text(encoding="utf-8"))
            else:
                found = wanted
                write_json(folder / RUN, wanted)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{folder} cannot be used: {one_line(error)}") from error
        listed = [f"{key}: there {short(there)}, now {short(now)}" for key, there, now in differences(found, wanted)]
        if listed:
            raise EvaluationError(
                f"{folder} holds another bench ({'; '.join(listed[:4])}); choose another --out, or delete {folder}"
            )

    def has(self, chunk: int) -> bool:
        """Whether a chunk is finished."""
        return self._path(chunk, "json").exists()

    def write(self, chunk: int, rows: list[dict[str, Any]], array: np.ndarray | None = None) -> None:
        """Keep a finished chunk.

        Raises:
            EvaluationError: it cannot be written.
        """
        if array is not None:
            path = self._path(chunk, "npy")
            partial = path.with_name(f".{path.name}.partial")
            try:
                with partial.open("wb") as file:
                    np.save(file, array)
                os.replace(partial, path)
            except OSError as error:
                raise EvaluationError(f"{path} cannot be written: {one_line(error)}") from error
            finally:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run of the same folder out.

    Raises:
        EvaluationError: one is there, or the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise EvaluationError(f"--out {folder} cannot be written: {one_line(error)}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EvaluationError(f"--out {folder} is being written by another process") from None
        yield
