"""Reading the rows of local files: JSON lines, parquet, or a folder of JSON files; errors name file, line and field."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.errors import DataError, one_line

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Field:
    """A field to read from every row.

    Attributes:
        name: Its name, here and in the source.
        aliases: Other names that sources give it.
        number: A whole number is taken too, as its digits.
        optional: It may be absent, null or empty, and is left out then.
    """

    name: str
    aliases: tuple[str, ...] = ()
    number: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Record:
    """One row of a data set: its text fields, its place in the file, and words for that place."""

    fields: dict[str, str]
    index: int
    where: str

    @property
    def name(self) -> str:
        """What reports call the row: its id, or its place without the folder, which differs by machine."""
        return self.fields.get("unique_id") or self.fields.get("id") or self.where.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """The rows of a source, and what the manifest says of where they come from."""

    records: list[Record]
    origin: dict[str, Any]


def read_records(path: Path, fields: Sequence[Field], option: str = "--source") -> Source:
    """Reads the named fields of every row of a file.

    Args:
        path: A `.jsonl` file (UTF-8, one object a line; blank lines hold no row), a `.parquet` file, or a folder whose
            `.json` files, at any depth, hold one object each. Such a row gets the field `unique_id` from the path of
            its file, as in `train/algebra/1.json`.
        fields: The fields to read.
        option: The command line option that named the path, for the error.

    Returns:
        The rows in file order, numbered from 0.

    Raises:
        DataError: The file is absent, of another kind, broken, empty or lacks a field.
    """
    if path.is_dir() and path.suffix not in SUFFIXES:
        rows, origin = _folder_rows(path)
    else:
        rows, origin = _file_rows(path, option)
    records = to_records(rows, fields)
    if not records:
        raise DataError(f"{path} holds no rows; check {option}")
    return Source(records, {"name": path.name, **origin, "rows": len(records)})


def to_records(rows: Iterable[tuple[dict[str, Any], str]], fields: Sequence[Field]) -> list[Record]:
    """Takes the named fields of rows, each given with words for its place.

    Raises:
        DataError: A row lacks a field, or holds something else than text in it.
    """
    records = []
    for index, (row, where) in enumerate(rows):
        taken = {field.name: take_field(row, field, where) for field in fields}
        records.append(Record({name: text for name, text in taken.items() if text is not None}, index, where))
    return records


def take_field(row: dict[str, Any], field: Field, where: str) -> str | None:
    """Takes one field of a row.

    Returns:
        Its text; None where an optional field is absent, null or blank.

    Raises:
        DataError: The field is absent, not text, or blank.
    """
    name = next((name for name in (field.name, *field.aliases) if name in row), None)
    value = None if name is None else row[name]
    if field.optional and (value is None or value == ""):
        return None
    if name is None:
        found = ", ".join(map(str, row)) or "none"
        raise DataError(f"{where}: no field {field.name!r} (fields found: {found}); check that this is the right file")
    if field.number and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} is not text but {type(value).__name__}; mend the row")
    if not value.strip():
        if field.optional:
            return None
        raise DataError(f"{where}: field {name!r} is empty; fill it in or delete the row")
    return value


def find(folder: Path, words: Sequence[str], prefer: Sequence[str]) -> Path | None:
    """Finds the file of a split in a folder that may hold other data sets too.

    Args:
        folder: Where to look, not deeper.
        words: The name of the file, in lower case, contains one of them; a folder of JSON files has one as its name.
        prefer: Where some of these names contain one of these words, the others are left aside.

    Raises:
        DataError: More than one file is left.
    """
    named = [
        path
        for path in sorted(folder.iterdir())
        if (path.suffix in SUFFIXES and any(word in path.name.lower() for word in words))
        or (path.is_dir() and path.name.lower() in words)
    ]
    named = [path for path in named if any(word in path.name.lower() for word in prefer)] or named
    if len(named) > 1:
        names = ", ".join(path.name for path in named)
        raise DataError(f"{folder} has more than one {words[0]} file: {names}; keep one there")
    return named[0] if named else None


def test_file(folder: Path, words: Sequence[str]) -> Path:
    """Finds the one file of a data set that is for testing only.

    Args:
        folder: A folder that holds it, or that is itself a folder of JSON files.
        words: Its name contains one of them; or else it is the only one whose name begins with `test`, as in a
            folder of this data set alone.

    Raises:
        DataError: There is no such file, or more than one.
    """
    tests = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.name.startswith("test")]
    found = find(folder, words, prefer=[]) or (tests[0] if len(tests) == 1 else None)
    if found is None and not any(folder.glob("*.json")):
        raise DataError(
            f"{folder} has no {words[0]} file: none of its {' or '.join(SUFFIXES)} files has "
            f"{' or '.join(map(repr, words))} in its name, no single one is called test..., and it holds no .json "
            "files; name the file with --source"
        )
    return found or folder


def size_notes(name: str, size: int, source: Source) -> list[str]:
    """Compares the size of a source with that of a data set that never changes.

    Returns:
        A line to print where the source has fewer problems.

    Raises:
        DataError: It has more, so it is another data set.
    """
    rows = len(source.records)
    if rows > size:
        raise DataError(f"{name} has {size} problems, this source {rows}: it is another data set; check --source")
    return [f"{name} has {size} problems, this source {rows}"] if rows < size else []


def split_files(folder: Path, prefer: Sequence[str]) -> tuple[Path, Path | None]:
    """Finds the train file of a folder and, where it has one, the test file.

    Raises:
        DataError: There is no train file, or more than one file for a split.
    """
    train, test = find(folder, ["train"], prefer), find(folder, ["test"], prefer)
    if train is None:
        raise DataError(
            f"{folder} has no train file: none of its {' or '.join(SUFFIXES)} files has 'train' in its name, and it "
            "has no folder train of .json files"
        )
    return train, test


def sha256(data: bytes) -> str:
    """Gives the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


Rows = Iterator[tuple[dict[str, Any], str]]


def _file_rows(path: Path, option: str) -> tuple[Rows, dict[str, Any]]:
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file; check {option}")
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; check {option}")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is neither .jsonl nor .parquet; convert it or choose another file")
    data = path.read_bytes()
    rows = _jsonl_rows(path, data) if path.suffix == ".jsonl" else _parquet_rows(path, data)
    return rows, {"sha256": sha256(data)}


def _folder_rows(folder: Path) -> tuple[Rows, dict[str, Any]]:
    files = sorted(folder.rglob("*.json"), key=_natural)
    if not files:
        raise DataError(f"{folder} is a folder without .json files; name a file or a folder that holds the data set")
    read, digest = [], hashlib.sha256()
    for path in files:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a file; delete it or rename it")
        data, name = path.read_bytes(), path.relative_to(folder.parent).as_posix()
        row = _parse(data, str(path))
        read.append(({**row, "unique_id": row.get("unique_id", name)}, str(path)))
        digest.update(f"{name} {sha256(data)}\n".encode())
    return iter(read), {"files": len(files), "sha256": digest.hexdigest()}


def _natural(path: Path) -> tuple[str, int, str]:
    """Sorts 2.json before 10.json."""
    return path.parent.as_posix(), int(path.stem) if path.stem.isdecimal() else -1, path.name


def _jsonl_rows(path: Path, data: bytes) -> Rows:
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if raw.strip():
            where = f"{path}, line {number}"
            yield _parse(raw, where), where


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise DataError(f"{where}: not JSON ({one_line(error)}); mend it, or fetch the file again") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object but {type(row).__name__}; write one object a row")
    return row


def _parquet_rows(path: Path, data: bytes) -> Rows:
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a text column is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file: {one_line(error)}; fetch it again") from error
    for number, row in enumerate(rows, start=1):
        yield row, f"{path}, row {number}"
