"""What a run sampled and what it trained, as JSON lines: for tests, debugging and viewers.

Two kinds of record, switched on by `algorithm.spo.dump_dir`: trees, one line a prompt, written by the
rollout workers, and rows, one line a trained row as the trainer read it back just before the update.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.spo.tree import Node

TREES, ROWS = "trees", "rows"


class Dump:
    """Appends records to the JSON-lines files of a dump folder.

    Each process writes files of its own (`trees-<pid>.jsonl`), so that lines never interleave.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write_tree(self, prompt: Mapping[str, Any], prompt_ids: Sequence[int], root: Node) -> None:
        """Append one tree, with its values and rewards."""
        record = {
            "uid": prompt["uid"],
            "step": int(prompt["global_steps"]),
            "index": str(prompt["index"]),
            "prompt_ids": list(prompt_ids),
            "root": node_record(root),
        }
        self._append(TREES, [record])

    def write_rows(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append rows as the trainer sees them."""
        self._append(ROWS, records)

    def _append(self, kind: str, records: Sequence[Mapping[str, Any]]) -> None:
        with open(self.folder / f"{kind}-{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def node_record(node: Node) -> dict[str, Any]:
    """A node and everything under it as plain values."""
    return {
        "token_ids": node.token_ids,
        "log_probs": node.log_probs,
        "finished": node.finished,
        "reward": node.reward,
        "value": node.value,
        "children": [node_record(child) for child in node.children],
    }


def read_dump(folder: str | os.PathLike[str], kind: str) -> Iterator[dict[str, Any]]:
    """Read back all records of a kind, `TREES` or `ROWS`."""
    for path in sorted(Path(folder).glob(f"{kind}-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
