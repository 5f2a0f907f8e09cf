"""Small files that are whole or not there: a process that is killed leaves no half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JsonError(ValueError):
    """A file that this package wrote is not JSON any more; the message names it."""


def write_text(path: Path, text: str) -> None:
    """Write a file at once, over whatever was there.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON at once; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; None if it is not there.

    Raises:
        JsonError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise JsonError(f"{path} is not readable as JSON ({error}): restore or delete it") from error
