"""The parquet schema verl reads, and the one writer and reader of it.

Every data set becomes `<out>/<split>.parquet` with the columns of `SCHEMA`. A bad row, a bad option
or an unreadable file raises `DataError`, which `run` turns into one line on stderr.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.errors import DataError, one_line
from data_prep.errors import run as run
from data_prep.placing import place

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
                    ("id", pa.string()),
                    ("subject", pa.string()),
                    ("level", pa.string()),
                ]
            ),
        ),
    ]
)

MANIFEST = "manifest.json"


def make_row(
    *,
    data_source: str,
    question: str,
    answer: str,
    ground_truth: str,
    split: str,
    index: int,
    prompt: str | Sequence[Mapping[str, str]] | None = None,
    ability: str = "math",
    id: str | None = None,
    subject: str | None = None,
    level: str | None = None,
) -> Row:
    """Makes one row in verl's schema.

    Args:
        data_source: Name of the data set; verl groups validation metrics by it.
        question: The problem as the data set words it.
        answer: The worked solution, kept for reference and for fitting.
        ground_truth: The final answer that the reward compares with.
        split: `train`, `validation` or `test`.
        index: Number of the problem, unique within the split.
        prompt: What the user says, or all messages of the prompt; the question where not given.
        ability: verl's label for the kind of task.
        id: Name of the problem in its data set, if it has one.
        subject: Its field of mathematics, if the data set tells.
        level: Its difficulty, if the data set tells.

    Returns:
        The row, not yet checked; `write_splits` checks it.
    """
    if prompt is None or isinstance(prompt, str):
        prompt = [{"role": "user", "content": question if prompt is None else prompt}]
    return {
        "data_source": data_source,
        "prompt": [dict(message) for message in prompt],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            "split": split,
            "index": index,
            "question": question,
            "answer": answer,
            "id": id,
            "subject": subject,
            "level": level,
        },
    }


def write_splits(
    out: Path, splits: Mapping[str, Sequence[Row]], manifest: Mapping[str, Any] | None = None
) -> list[Path]:
    """Checks and writes all splits of a data set, each to `<out>/<split>.parquet`.

    All splits are checked and written to temporary files before the first one is put in place, so
    an error leaves what was there before.

    Args:
        out: Folder to write to; made if absent.
        splits: Rows by name of the split.
        manifest: What `manifest.json` says of the data set, besides the hashes of the files, which are added. Without
            it none is written, and one that is there goes, as it would describe other files.

    Returns:
        The files written, in the order of `splits`, then the manifest.

    Raises:
        DataError: A split is empty, a row is not usable, `out` holds a split that this data set does not have and
            which would be taken for a part of it or a half-written file, or it cannot be written to.
    """
    for split, rows in splits.items():
        _check_split(split, rows)
    _check_target(out, splits)
    files = {f"{split}.parquet": _to_bytes(rows) for split, rows in splits.items()}
    if manifest is None:
        return place(out, files, delete=[MANIFEST])
    rows_of = {f"{split}.parquet": len(rows) for split, rows in splits.items()}
    files_said = [
        {"name": name, "rows": rows_of[name], "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    text = json.dumps({**manifest, "files": files_said}, indent=2, ensure_ascii=False) + "\n"
    return place(out, {**files, MANIFEST: text.encode()})


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
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file: {one_line(error)}; make it again") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path} has other columns than the data_prep commands write; make it again")
    return table.to_pylist()


def _to_bytes(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), buffer)
    return buffer.getvalue()


def _check_target(out: Path, splits: Mapping[str, Any]) -> None:
    """Refuses to write beside or over files that are not what they seem."""
    for split in SPLITS:
        path = out / f"{split}.parquet"
        if not path.is_file():
            continue
        if split not in splits:
            raise DataError(
                f"{path} is left from another data set and this one has no "
                f"{split} split; delete it or choose another --out"
            )
        try:
            pq.ParquetFile(path).close()
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} cannot be read as parquet, as if half-written ({one_line(error)}); delete it, then run again"
            ) from error


def _check_split(split: str, rows: Sequence[Row]) -> None:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    if not rows:
        raise DataError(f"the {split} split would be empty; loosen the options that drop rows, or check the source")
    seen: set[int] = set()
    for row in rows:
        info = row["extra_info"]
        index = info["index"]
        texts = {
            "question": info["question"],
            **{f"prompt ({message['role']})": message["content"] for message in row["prompt"][:-1]},
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
