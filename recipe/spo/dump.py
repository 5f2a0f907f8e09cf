"""What a run sampled and what it trained, as JSON lines: for the viewer, tests and debugging.

Switched on by `algorithm.spo.dump_dir`: trees or chains, one line a question, written by the rollout
workers (what stands in a line: `recipe.spo.recorder`), by default a sample of them and no more than
fits (`algorithm.spo.dump_sample`); without a sample all of them, and rows, one line a trained row as
the trainer read it back just before the update.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.spo.tree import Node

TREES, CHAINS, ROWS = "trees", "chains", "rows"


class Dump:
    """Appends records to the JSON-lines files of a dump folder.

    Each process writes files of its own (`trees-<pid>.jsonl`), so that lines never interleave.

    Args:
        folder: is made if it is not there.
        max_bytes: most bytes of all JSON lines in the folder, those of earlier runs among them; `None`: no limit.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, kind: str, records: Sequence[Mapping[str, Any]]) -> bool:
        """Append records, all of them or none.

        Args:
            kind: `TREES`, `CHAINS` or `ROWS`.
            records: plain values.

        Returns:
            Whether there was room for them.
        """
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        with self._room(len(lines)) as room:
            if room:
                with open(self.folder / f"{kind}-{os.getpid()}.jsonl", "ab") as file:
                    file.write(lines)
        return room

    @contextlib.contextmanager
    def _room(self, size: int) -> Iterator[bool]:
        """Whether so many bytes fit; other processes that write wait until the block is done."""
        if self.max_bytes is None:
            yield True
            return
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            used = sum(file.stat().st_size for file in self.folder.glob("*.jsonl"))
            yield used + size <= self.max_bytes


def node_record(node: Node) -> dict[str, Any]:
    """A node as plain values, without what is under it."""
    return {
        "token_ids": node.token_ids,
        "log_probs": node.log_probs,
        "finished": node.finished,
        "reward": node.reward,
        "verdict": node.verdict,
        "value": node.value,
    }


def node_of(record: Mapping[str, Any]) -> Node:
    """A recorded node, with everything under it."""
    return Node(
        list(record["token_ids"]),
        list(record["log_probs"]),
        record["finished"],
        [node_of(child) for child in record["children"]],
        record["reward"],
        record.get("verdict", ""),
        record["value"],
    )


def read_dump(folder: str | os.PathLike[str], kind: str) -> Iterator[dict[str, Any]]:
    """Read back all records of a kind: `TREES`, `CHAINS` or `ROWS`."""
    for path in sorted(Path(folder).glob(f"{kind}-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
