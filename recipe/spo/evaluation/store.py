"""The folder of an evaluation: a fingerprint, a file a finished chunk, and the result.

`OUT/run.json` says what is being evaluated; a run with another fingerprint does not go on in the
same folder. `OUT/chunks/00000.parquet`, ... hold the responses of a chunk each, appear whole or
not at all, and bear the fingerprint's digest. `OUT/responses.parquet` and `OUT/result.json` are made
of them and hold no time of day; `OUT/timing.json` does.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.spo.evaluation.errors import EvaluationError, one_line

_DIGEST = b"spo_run_sha256"
RUN, RESULT, RESPONSES, TIMING = "run.json", "result.json", "responses.parquet", "timing.json"

#: A row a response.
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question_digest", pa.string()),
        ("data_source", pa.string()),
        ("ground_truth", pa.string()),
        ("prompt", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("sample", pa.int32()),
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("log_probs", pa.list_(pa.float32())),  # null unless asked for
        ("tokens", pa.int32()),
        ("finished", pa.bool_()),
        ("reason", pa.string()),
        ("answer", pa.string()),
        ("score", pa.float64()),
    ]
)
#: What the numbers are made of; the texts stay on disk.
NUMBER_COLUMNS = [
    *("question_id", "question_digest", "data_source", "prompt_tokens", "sample"),
    *("tokens", "finished", "reason", "answer", "score"),
]


def check_folder(out: Path) -> None:
    """Sees that `--out` is a folder or can become one.

    Raises:
        EvaluationError: it, or one of the folders it would be in, is a file.
    """
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise EvaluationError(f"--out {out}: {path} is a file; give a folder")


def open_run(folder: Path, name: str, made: Path) -> dict[str, Any] | None:
    """Make a folder, and read the fingerprint in it; None if there is none yet.

    Args:
        folder: where `run.json` stands.
        name: what a complaint calls it.
        made: made if absent, with all above it.

    Raises:
        EvaluationError: the folder cannot be used, or its `run.json` cannot be read.
    """
    check_folder(folder)
    try:
        made.mkdir(parents=True, exist_ok=True)
        if not (folder / RUN).exists():
            return None
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{RUN} holds no JSON object; delete the folder")
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{name} cannot be used: {one_line(error)}") from error
    return found


def refuse_other(found: Mapping[str, Any], wanted: Mapping[str, Any], complaint: str, remedy: str) -> None:
    """Refuse to go on in a folder with another fingerprint.

    Raises:
        EvaluationError: they differ; the complaint, where they do, and the remedy.
    """
    listed = [f"{key}: there {short(there)}, now {short(now)}" for key, there, now in differences(found, wanted)]
    if listed:
        raise EvaluationError(f"{complaint} ({'; '.join(listed[:4])}); {remedy}")


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


class Store:
    """The folder of one evaluation.

    Args:
        folder: made if absent.
        fingerprint: what the responses depend on; nested, and ready for JSON.

    Raises:
        EvaluationError: the folder holds another evaluation, or cannot be used.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps(fingerprint))
        found = open_run(folder, f"--out {folder}", made=folder / "chunks")
        self.digest = _digest(wanted)
        if found is None:
            found = wanted
            for path in sorted((folder / "chunks").glob("*.parquet")):
                self._check_digest(path, _read(path, pq.read_schema))
            write_json(folder / RUN, wanted)
        refuse_other(found, wanted, f"--out {folder} holds another evaluation", "choose another, or delete it")
        self.fingerprint = found

    def locked(self) -> AbstractContextManager[None]:
        """Keep a second run of the same folder out; see `locked`."""
        return locked(self.folder)

    def chunk_path(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.folder / "chunks" / f"{chunk:05d}.parquet"

    def has_chunk(self, chunk: int) -> bool:
        """Whether the chunk is finished."""
        return self.chunk_path(chunk).exists()

    def write_chunk(self, chunk: int, rows: list[dict[str, Any]]) -> None:
        """Keep a finished chunk; it is there whole or not at all.

        Raises:
            EvaluationError: it cannot be written.
        """
        table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({_DIGEST: self.digest})
        replace_file(self.chunk_path(chunk), lambda path: pq.write_table(table, path))

    def read_chunk(self, chunk: int) -> list[dict[str, Any]]:
        """A finished chunk, without texts.

        Raises:
            EvaluationError: its file is damaged, or of another evaluation.
        """
        return self._table(chunk, NUMBER_COLUMNS).to_pylist()

    def merge(self, chunks: int) -> None:
        """Write `responses.parquet` from all chunks, one in memory at a time."""

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, SCHEMA) as writer:
                for chunk in range(chunks):
                    writer.write_table(self._table(chunk, SCHEMA.names))

        replace_file(self.folder / RESPONSES, write)

    def add_timing(self, chunk: int, seconds: float, tokens: int) -> None:
        """Note how long a chunk took, which no result depends on."""
        path = self.folder / TIMING
        timing = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"chunks": {}}
        timing["chunks"][str(chunk)] = {"seconds": round(seconds, 3), "generated_tokens": tokens}
        for name in ("seconds", "generated_tokens"):
            timing[name] = round(sum(entry[name] for entry in timing["chunks"].values()), 3)
        write_json(path, timing)

    def _table(self, chunk: int, columns: list[str]) -> pa.Table:
        path = self.chunk_path(chunk)
        table = _read(path, lambda file: pq.read_table(file, columns=columns))
        self._check_digest(path, table.schema)
        return table.replace_schema_metadata(None)

    def _check_digest(self, path: Path, schema: pa.Schema) -> None:
        if (schema.metadata or {}).get(_DIGEST) != self.digest.encode():
            raise EvaluationError(
                f"{path} is of another evaluation; delete {path.parent} to begin anew, or choose another --out"
            )


def _digest(fingerprint: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint without what `differences` does not look at."""

    def nameless(value: Any) -> Any:
        return {k: nameless(v) for k, v in value.items() if k != "name"} if isinstance(value, dict) else value

    return hashlib.sha256(json.dumps(nameless(fingerprint), sort_keys=True).encode()).hexdigest()


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise EvaluationError(f"{path} is damaged; delete it and run again ({one_line(error)})") from error


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, object, object]]:
    """Where two fingerprints differ: the key, and what each has there; names are for people and may differ."""
    listed = []
    for key in sorted({*first, *second}):
        name, one, other = f"{prefix}{key}", first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            listed += differences(one, other, f"{name}.")
        elif one != other and key != "name":
            listed.append((name, one, other))
    return listed


def write_json(path: Path, value: object) -> None:
    """Write JSON, whole or not at all; raises EvaluationError if it cannot be written."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, whole or not at all; raises EvaluationError if it cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {one_line(error)}; what is finished is kept, and the same command goes on "
            "once there is room and leave to write"
        ) from error
    finally:
        with suppress(OSError):  # the error above is the one to tell
            partial.unlink(missing_ok=True)


def short(value: object) -> str:
    """A value of a fingerprint, for a message."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:18]}..."
