"""The manifest beside the parquet files: what made them, so that the same can be made again and compared.

It holds no time and no absolute path: the same input, options and version give the same bytes.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.problems import Counts
from recipe.spo import __version__


def manifest(
    data_set: str,
    *,
    args: argparse.Namespace,
    sources: Sequence[Mapping[str, Any]] = (),
    counts: Mapping[str, Counts] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Puts a manifest together; the writer adds the files written and their hashes.

    Args:
        data_set: Name of the data set.
        args: The command line options; paths are kept without their folders, `--out` is left out.
        sources: Where the rows come from, with hashes.
        counts: What became of the rows, by source.
        more: Further entries; those that are None are left out.
    """
    options = {name: _plain(value) for name, value in sorted(vars(args).items()) if name != "out"}
    return {
        "data_set": data_set,
        "made_by": {"package": "verl-spo", "version": __version__},
        "options": options,
        "sources": [dict(source) for source in sources],
        "counts": {name: _count(count) for name, count in (counts or {}).items()},
        **{name: value for name, value in more.items() if value is not None},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Path) else value


def _count(count: Counts) -> dict[str, Any]:
    dropped = [{"reason": reason, "count": len(ids), "ids": ids} for reason, ids in sorted(count.dropped.items())]
    return {"read": count.read, "usable": count.read - count.unusable, "kept": count.kept, "dropped": dropped}
