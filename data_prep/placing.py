"""Putting the files of a data set in place: all of them or, on an error, none."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.errors import DataError, one_line

_PARTIAL = re.compile(r"\..+\.(\d+)\.partial")


def place(out: Path, files: Mapping[str, bytes], delete: Sequence[str] = ()) -> list[Path]:
    """Writes files into a folder.

    Each is written beside its target under the name `.<name>.<process>.partial`, and only when all are on the disk do
    they take the place of what was there before. Partial files of processes that are no more are removed.

    Args:
        out: The folder; made if absent.
        files: What the files hold, by name.
        delete: Names of files to delete, if there, when the others are in place.

    Returns:
        The files written, in the order of `files`.

    Raises:
        DataError: The folder or a file in it cannot be written, or another process is writing there.
    """
    targets = [out / name for name in files]
    for target in targets:
        if target.is_dir():
            raise DataError(f"{target} is a folder where a file belongs; delete it or choose another --out")
    made = _make_folder(out)
    _remove_leftovers(out)
    partial = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    placed = False
    try:
        for path, data in zip(partial, files.values(), strict=True):
            _write(path, data)
        for path, target in zip(partial, targets, strict=True):
            os.replace(path, target)
        placed = True
        for name in delete:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out} ({one_line(error)}); mend that or choose another --out") from error
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
        for folder in [] if placed else made:
            folder.rmdir()
    return targets


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a name must not outlive a power cut that its data does not


def _make_folder(out: Path) -> list[Path]:
    """Makes a folder; gives those made for it, the innermost first."""
    absent = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {out} ({one_line(error)}); choose another --out") from error
    return absent


def _remove_leftovers(out: Path) -> None:
    for path in out.iterdir():
        match = _PARTIAL.fullmatch(path.name)
        if not match:
            continue
        process = int(match[1])
        if process != os.getpid() and _lives(process):
            raise DataError(
                f"process {process} is writing to {out} ({path.name}); wait for it, or delete that file if it is no "
                "data_prep command"
            )
        try:
            path.unlink()
        except OSError as error:
            raise DataError(f"cannot remove {path}, left half-written ({one_line(error)}); delete it") from error


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
