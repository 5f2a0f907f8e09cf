"""Reading the rows of a local JSON lines or parquet file; errors name file, line and field."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.writer import DataError, one_line

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Record:
    """One row of a data set: its text fields, its place in the file, and words for that place."""

    fields: dict[str, str]
    index: int
    where: str


def read_records(path: Path, fields: Sequence[str]) -> list[Record]:
    """Reads the named text fields of every row of a file.

    Args:
        path: A `.jsonl` file (UTF-8, one object a line; blank lines hold no row), or `.parquet`.
        fields: Names of the fields to read; each must be text in every row.

    Returns:
        The rows in file order, numbered from 0.

    Raises:
        DataError: The file is absent, of another kind, broken, empty or lacks a field.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; check --source")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is neither .jsonl nor .parquet; convert it or choose another file")
    rows = _jsonl_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path)
    records = [
        Record({field: text_field(row, field, where) for field in fields}, index, where)
        for index, (row, where) in enumerate(rows)
    ]
    if not records:
        raise DataError(f"{path} holds no rows")
    return records


def text_field(row: dict[str, object], field: str, where: str) -> str:
    """Takes one text field of a row.

    Raises:
        DataError: The field is absent, not text, or blank.
    """
    if field not in row:
        found = ", ".join(map(str, row)) or "none"
        raise DataError(f"{where}: no field {field!r} (fields found: {found})")
    value = row[field]
    if not isinstance(value, str):
        raise DataError(f"{where}: field {field!r} is not text but {type(value).__name__}")
    if not value.strip():
        raise DataError(f"{where}: field {field!r} is empty; fill it in or delete the row")
    return value


def _jsonl_rows(path: Path) -> Iterator[tuple[dict[str, object], str]]:
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        where = f"{path}, line {number}"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from error
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({one_line(error)}); mend the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object but {type(row).__name__}")
        yield row, where


def _parquet_rows(path: Path) -> Iterator[tuple[dict[str, object], str]]:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {one_line(error)}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield row, f"{path}, row {number}"
