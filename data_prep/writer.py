"""The parquet schema verl reads, and the one writer and reader of it.

Every data set becomes `<out>/<split>.parquet` with the columns of `SCHEMA`. A bad row, a bad option
or an unreadable file raises `DataError`, which `run` turns into one line on stderr.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("question", pa.string()),
                    ("answer", pa.string()),
                ]
            ),
        ),
    ]
)


class DataError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


def make_row(
    *,
    data_source: str,
    question: str,
    answer: str,
    ground_truth: str,
    split: str,
    index: int,
    prompt: str | None = None,
    ability: str = "math",
) -> Row:
    """Makes one row in verl's schema.

    Args:
        data_source: Name of the data set; verl groups validation metrics by it.
        question: The problem as the data set words it.
        answer: The worked solution, kept for reference and for fitting.
        ground_truth: The final answer that the reward compares with.
        split: `train`, `validation` or `test`.
        index: Number of the problem, unique within the split.
        prompt: What the user says; the question where not given.
        ability: verl's label for the kind of task.

    Returns:
        The row, not yet checked; `write_splits` checks it.
    """
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": question if prompt is None else prompt}],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {"split": split, "index": index, "question": question, "answer": answer},
    }


def write_splits(out: Path, splits: Mapping[str, Sequence[Row]]) -> list[Path]:
    """Checks and writes all splits of a data set, each to `<out>/<split>.parquet`.

    All splits are checked and written to temporary files before the first one is put in place, so
    an error leaves what was there before.

    Args:
        out: Folder to write to; made if absent.
        splits: Rows by name of the split.

    Returns:
        The files written, in the order of `splits`.

    Raises:
        DataError: A split is empty, a row is not usable, or `out` holds a split that this data set
            does not have and which would be taken for a part of it.
    """
    for split, rows in splits.items():
        _check_split(split, rows)
    stale = [s for s in SPLITS if s not in splits and (out / f"{s}.parquet").exists()]
    if stale:
        raise DataError(
            f"{out / stale[0]}.parquet is left from another data set and this one has no "
            f"{stale[0]} split; delete it or choose another --out"
        )
    targets = [out / f"{split}.parquet" for split in splits]
    partial = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    out.mkdir(parents=True, exist_ok=True)
    try:
        for path, rows in zip(partial, splits.values(), strict=True):
            pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)
        for path, target in zip(partial, targets, strict=True):
            os.replace(path, target)
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
    return targets


def read_split(data: Path, split: str) -> list[Row]:
    """Reads `<data>/<split>.parquet`.

    Raises:
        DataError: The file is absent, not parquet, or of another schema.
    """
    path = data / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"{path} does not exist; make it with one of the data_prep commands")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {one_line(error)}") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path} has other columns than the data_prep commands write")
    return table.to_pylist()


def run(main: Callable[[], None]) -> None:
    """Runs a command; an error of the user's ends it with one line on stderr and exit status 2."""
    try:
        main()
    except (DataError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def one_line(error: BaseException) -> str:
    """Gives an error's message on one line."""
    return " ".join(str(error).split())


def _check_split(split: str, rows: Sequence[Row]) -> None:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    if not rows:
        raise DataError(f"the {split} split would be empty")
    seen: set[int] = set()
    for row in rows:
        info = row["extra_info"]
        index = info["index"]
        texts = {
            "question": info["question"],
            "prompt": row["prompt"][-1]["content"],
            "answer": info["answer"],
            "ground_truth": row["reward_model"]["ground_truth"],
        }
        for field, text in texts.items():
            if field != "answer" and not text.strip():
                raise DataError(f"{split} row {index}: {field} is empty")
            if not _is_unicode(text):
                raise DataError(f"{split} row {index}: {field} holds half of a surrogate pair")
        if info["split"] != split:
            raise DataError(f"{split} row {index}: says it belongs to split {info['split']!r}")
        if index in seen:
            raise DataError(f"{split} row {index}: this index occurs twice")
        seen.add(index)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
