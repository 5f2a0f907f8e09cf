"""Rows that wait for a later step, in checkpoints: what the queue holds is lost with its process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transfer_queue as tq

FILE = "spo_waiting_rows.pt"


class MissingRows(RuntimeError):
    """A checkpoint of a run with replay lacks the rows that were waiting."""


def save_waiting_rows(folder: Path, keys: Sequence[str]) -> None:
    """Write the rows of `keys`, with all their fields and tags, into a checkpoint folder."""
    tags = (tq.kv_list("train") or {}).get("train", {})
    fields = tq.kv_batch_get(keys=list(keys), partition_id="train") if keys else None
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"keys": list(keys), "tags": [tags[key] for key in keys], "fields": fields}, folder / FILE)


def load_waiting_rows(folder: Path, required: bool) -> list[str]:
    """Put a checkpoint's waiting rows, if there are any, back into the queue; returns their keys.

    Raises:
        MissingRows: they are required, and the checkpoint is one of a run without replay.
    """
    path = folder / FILE
    if not path.exists() and not required:
        return []
    if not path.exists():
        raise MissingRows(
            f"{path} is missing: this checkpoint was written without replay. Set algorithm.spo.replay.max_age=0, "
            "or start from another checkpoint"
        )
    saved = torch.load(path, weights_only=False)
    if saved["keys"]:
        tq.kv_batch_put(keys=saved["keys"], partition_id="train", fields=saved["fields"], tags=saved["tags"])
    return saved["keys"]
