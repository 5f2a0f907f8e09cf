"""Make a Hugging Face folder of a checkpoint: weights, tokenizer, generation config and a model card.

    python -m recipe.spo.export checkpoints/spo/spo_tree --out my-model --step best

RUN_OR_CHECKPOINT is the folder of a run (trainer.default_local_dir) or one of its global_step_N. The
weights are merged by verl's own merger, which writes bfloat16; the card, README.md, says what the run
recorded about itself. Exit codes: 0 done, 2 wrong input (one line says what).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from recipe.spo.checkpoints import BEST, STEP, TRACKER, VALIDATION, CheckpointError, latest_step, saved_steps
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.models import STAMP, find_model
from recipe.spo.json_files import JsonError, read_json
from recipe.spo.model_card import Recorded, model_card
from recipe.spo.run_record import FACTS, read_config


class ExportError(ValueError):
    """Something the user can mend; the message says what, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of a run.

    Attributes:
        root: the run's folder.
        step: its step.
    """

    root: Path
    step: int

    @property
    def folder(self) -> Path:
        return self.root / f"global_step_{self.step}"


def find_checkpoint(path: Path, step: str | None = None) -> Checkpoint:
    """Find what is to be exported.

    Args:
        path: folder of a run, or of one of its checkpoints.
        step: a number, `best` or `latest`; None: the latest of a run, the checkpoint itself.

    Raises:
        ExportError: there is no such checkpoint, or it is unfinished.
        CheckpointError, JsonError: the run's folder is damaged.
    """
    if not path.is_dir():
        raise ExportError(f"{path} is not a folder; give the folder of a run, or one of its global_step_N")
    path = path.resolve()
    number = path.name.removeprefix("global_step_")
    if path.name.startswith("global_step_") and number.isdigit():
        if step is not None:
            raise ExportError(f"{path} is one checkpoint: leave out --step {step}, or give {path.parent}")
        chosen = Checkpoint(path.parent, int(number))
    else:
        chosen = Checkpoint(path, _chosen_step(path, step or "latest"))
    there = [saved.step for saved in saved_steps(chosen.root)]
    if chosen.step not in there:
        raise ExportError(
            f"{chosen.root} has no checkpoint of step {chosen.step}; it has {_listed(there)}. Choose one with --step"
        )
    latest = latest_step(chosen.root)
    if latest is None or chosen.step > latest:
        raise ExportError(
            f"{chosen.folder} is unfinished: {TRACKER} beside it "
            + ("is missing" if latest is None else f"says that step {latest} is the last complete one")
        )
    return chosen


def _chosen_step(root: Path, step: str) -> int:
    if step == "latest":
        latest = latest_step(root)
        if latest is None:
            raise ExportError(
                f"{root} holds no complete checkpoint ({TRACKER} is missing); it holds the folders "
                f"{_listed([saved.step for saved in saved_steps(root)])}"
            )
        return latest
    if step == "best":
        best = read_json(root / BEST)
        if best is None:
            raise ExportError(
                f"{root} has no {BEST}: none of its checkpoints was validated, or algorithm.spo.keep_best was null; "
                "use --step latest or a number"
            )
        return best["step"]
    if not step.isdigit():
        raise ExportError(f"--step is {step!r}: use a number, best or latest")
    return int(step)


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def read_recorded(checkpoint: Checkpoint) -> Recorded:
    """Collect what a run wrote down about itself; parts that are not there are None.

    Raises:
        CheckpointError, JsonError: a part is damaged.
    """
    return Recorded(
        step=checkpoint.step,
        config=read_config(checkpoint.root),
        facts=read_json(checkpoint.root / FACTS),
        progress=read_json(checkpoint.folder / STEP),
        validation=read_json(checkpoint.folder / VALIDATION),
        best=read_json(checkpoint.root / BEST),
    )


def export(path: Path, out: Path, step: str | None = None) -> Checkpoint:
    """Write a checkpoint as a Hugging Face folder, whole or not at all.

    Args:
        path: see `find_checkpoint`.
        out: the folder to write; it must be empty or not there.
        step: see `find_checkpoint`.

    Returns:
        What was exported.

    Raises:
        ExportError, CheckpointError, JsonError: see `find_checkpoint`; or `out` is not empty or cannot be written.
        EvaluationError: the checkpoint is incomplete, or verl's merger failed.
    """
    checkpoint = find_checkpoint(path, step)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"--out {out} is there and not empty: choose another folder, or empty this one")
    card = model_card(read_recorded(checkpoint), title=out.resolve().name)
    model = find_model(str(checkpoint.folder))
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model.folder, partial, ignore=shutil.ignore_patterns(STAMP, ".*", "README.md"))
        (partial / "README.md").write_text(card, encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial.rename(out.resolve())
    except OSError as error:
        raise ExportError(f"--out {out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checkpoint


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m recipe.spo.export", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="folder of a run, or its global_step_N")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write; must be empty")
    parser.add_argument("--step", metavar="N|best|latest", help="which checkpoint of a run (default: latest)")
    given = parser.parse_args(arguments)
    try:
        checkpoint = export(given.run, given.out, given.step)
    except (ExportError, CheckpointError, JsonError, EvaluationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: step {checkpoint.step} of {checkpoint.root}; fill in `license` in its README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
