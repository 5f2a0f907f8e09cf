"""What a run sampled and what it trained, as JSON lines: for tests, debugging and viewers.

Switched on by `algorithm.spo.dump_dir`: trees or chains, one line a question, written by the rollout
workers, and rows, one line a trained row as the trainer read it back just before the update.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.spo.chain import ChainRollout
from recipe.spo.tree import Node

TREES, CHAINS, ROWS = "trees", "chains", "rows"


class Dump:
    """Appends records to the JSON-lines files of a dump folder.

    Each process writes files of its own (`trees-<pid>.jsonl`), so that lines never interleave.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write_rollout(self, prompt: Mapping[str, Any], prompt_ids: Sequence[int], rollout: Node | ChainRollout) -> None:
        """Append one question's tree or chain, with its rewards."""
        record = {
            "uid": prompt["uid"],
            "step": int(prompt["global_steps"]),
            "index": str(prompt["index"]),
            "prompt_ids": list(prompt_ids),
        }
        if isinstance(rollout, ChainRollout):
            self._append(CHAINS, [{**record, **chain_record(rollout)}])
        else:
            self._append(TREES, [{**record, "root": node_record(rollout)}])

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
        "verdict": node.verdict,
        "value": node.value,
        "children": [node_record(child) for child in node.children],
    }


def chain_record(rollout: ChainRollout) -> dict[str, Any]:
    """Responses with their cuts, and the continuations of every state, as plain values."""
    return {
        "trajectories": [{"response": node_record(t.response), "cuts": t.cuts} for t in rollout.trajectories],
        "continuations": [
            {"state": list(state), "samples": [node_record(sample) for sample in samples]}
            for state, samples in rollout.continuations.items()
        ],
    }


def node_of(record: Mapping[str, Any]) -> Node:
    """A node as it was before `node_record`."""
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
