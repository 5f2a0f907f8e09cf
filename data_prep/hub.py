"""Reading a data set from the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from typing import Any

from data_prep.errors import DataError, one_line
from data_prep.sources import Field, Source, sha256, to_records


def read_hub(
    name: str, splits: Sequence[str], fields: Sequence[Field], *, config: str | None = None, revision: str | None = None
) -> list[Source]:
    """Reads splits of a data set.

    The hash in the origin of a split is taken over the fields read, as the hub gives no file.

    Args:
        name: The data set's id on the hub.
        splits: The splits to read.
        fields: The fields to read.
        config: The configuration, where the data set has several.
        revision: Commit, tag or branch of the data set; its newest where not given.

    Returns:
        One source for each split.

    Raises:
        DataError: The hub does not give them, or a row is not usable.
    """
    import datasets  # slow to import and needed for the hub only

    label = f"{name}/{config}" if config else name
    try:
        loaded = datasets.load_dataset(*([name, config] if config else [name]), revision=revision)
    except Exception as error:  # the hub client's errors share no base class
        raise DataError(
            f"cannot load {label} from the Hugging Face hub ({type(error).__name__}: "
            f"{one_line(error)}); check the network, or give local files with --source"
        ) from error
    sources = []
    for split in splits:
        if split not in loaded:
            raise DataError(f"{label} has no split {split!r} on the Hugging Face hub; give local files with --source")
        rows = ((row, f"{label} {split}, row {number}") for number, row in enumerate(loaded[split], start=1))
        records = to_records(rows, fields)
        origin = {
            "name": label,
            "split": split,
            "revision": _commit(loaded[split]) or revision,
            "sha256": sha256(json.dumps([record.fields for record in records]).encode()),
            "rows": len(records),
        }
        sources.append(Source(records, origin))
    return sources


def _commit(split: Any) -> str | None:
    """Finds the commit that a split was read from in the addresses of its files."""
    addresses = getattr(getattr(split, "info", None), "download_checksums", None) or ()
    found = {match[1] for address in addresses if (match := re.search(r"@([0-9a-f]{40})/", address))}
    return found.pop() if len(found) == 1 else None
