"""Data and start policy of a variant: made once, shared by all methods and seeds."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.learning.errors import LearningError
from benchmarks.learning.plan import Variant
from examples.demo import prepare
from recipe.spo.evaluation.store import refuse_other
from recipe.spo.json_files import JsonError, read_json, write_json
from recipe.spo.tiny_policy.command import RECORD as POLICY_RECORD

STARTS, POLICY, MADE_WITH = "starts", "policy", "start.json"
#: In the folder of a start.
WEIGHTS = Path(POLICY, "model.safetensors")
Prepare = Callable[..., tuple[Path, Path]]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts.

    Attributes:
        data: folder with train.parquet and validation.parquet.
        policy: Hugging Face folder.
        facts: what is known of both, part of a run's settings.
    """

    data: Path
    policy: Path
    facts: Mapping[str, Any]


def make_start(out: Path, variant: Variant, problems: int, console: Console, prepare: Prepare = prepare) -> Start:
    """Make data and policy of a variant, or find them made.

    Args:
        out: folder of the bench.
        variant: which task.
        problems: of validation.
        console: where the stages are announced.
        prepare: makes both; `examples.demo.prepare`.

    Raises:
        LearningError: they could not be made.
        EvaluationError: there are data of another size or task.
    """
    folder = out / STARTS / variant.name
    # As it is read back: tuples are lists there.
    wanted = json.loads(json.dumps({"task": asdict(variant.task), "problems": problems}))
    try:
        found = read_json(folder / MADE_WITH)
        if found is not None:
            remedy = f"choose another --out, or delete {folder} and the runs that started there"
            refuse_other(found, wanted, f"{folder} was made for another task", remedy)
        folder.mkdir(parents=True, exist_ok=True)
        data, policy = prepare(folder, problems, console, variant.task)
        facts = wanted | facts_of(data, policy)
        write_json(folder / MADE_WITH, wanted)
    except subprocess.CalledProcessError as error:
        raise LearningError(
            f"data or policy of {variant.name} could not be made, see above (exit status {error.returncode})"
        ) from None
    except (JsonError, OSError) as error:
        raise LearningError(f"{folder} cannot be used: {error}") from None
    return Start(data, policy, facts)


def facts_of(data: Path, policy: Path) -> dict[str, Any]:
    """Hashes of the data and of the policy's weights, and the policy's greedy accuracy where it is recorded."""
    record = read_json(policy / POLICY_RECORD) or {}
    return {
        "data_sha256": {split: _sha256(data / f"{split}.parquet") for split in ("train", "validation")},
        "policy_sha256": _sha256(policy / "model.safetensors"),
        "policy_greedy_accuracy": record.get("greedy_accuracy"),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
