"""What is at a model's address: a Hugging Face folder, a hub id, or a checkpoint of verl.

All three become a Hugging Face folder on this machine. A checkpoint is merged by verl's own merger,
once, into a folder beside its shards. (The merger writes bfloat16, whatever training computed in.)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line

MERGED, STAMP = "actor_merged", "merged_from.json"
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded.

    Attributes:
        name: as the user wrote it.
        folder: Hugging Face folder with configuration, tokenizer and weights.
        config: its config.json.
    """

    name: str
    folder: Path
    config: dict[str, Any]

    @property
    def context_limit(self) -> int | None:
        """Tokens that the model was made for, None if it does not say."""
        for part in (self.config, self.config.get("text_config") or {}):
            if isinstance(part.get("max_position_embeddings"), int):
                return part["max_position_embeddings"]
        return None

    @property
    def dtype(self) -> str:
        """The dtype of the weights, as the configuration says it."""
        text = self.config.get("text_config") or {}
        found = (part.get(key) for part in (self.config, text) for key in ("dtype", "torch_dtype"))
        return str(next((value for value in found if value), "float32")).removeprefix("torch.")

    def digest(self) -> str:
        """SHA-256 over configuration, tokenizer and weights: another model, another digest."""
        digest = hashlib.sha256()
        patterns = (*_WEIGHTS, "*.json", "*.jinja", "tokenizer.model")
        for file in sorted(
            {file for pattern in patterns for file in self.folder.glob(pattern)} - {self.folder / STAMP}
        ):
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def find_model(name: str) -> Model:
    """Makes a Hugging Face folder of whatever is at that address.

    Args:
        name: a Hugging Face folder; a verl checkpoint (`global_step_N`, its `actor`, or the folder of a
            run, whose last step is taken); or a hub id, with `@revision` behind it for other than main.

    Raises:
        EvaluationError: there is nothing of these there, or it is incomplete.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        folder = _local_folder(path)
    elif path.exists():
        raise EvaluationError(f"{name} is a file; a model is a folder or a hub id")
    elif _HUB_ID.fullmatch(name) and not name.startswith("."):
        folder = _download(name)
    else:
        raise EvaluationError(f"{name} is neither a folder on this machine nor a hub id (owner/name)")
    return _checked(name, folder)


def _local_folder(path: Path) -> Path:
    last = path / "latest_checkpointed_iteration.txt"
    if last.is_file():
        path = path / f"global_step_{last.read_text(encoding='utf-8').strip()}"
    actor = path / "actor" if (path / "actor").is_dir() else path
    shards = [file for file in actor.glob("model_world_size_*_rank_*.pt") if _SHARD.fullmatch(file.name)]
    if not shards and not (actor / "fsdp_config.json").exists():
        if (actor / "model").is_dir() or (actor / "dist_ckpt").is_dir():
            raise EvaluationError(
                f"{actor} is a Megatron checkpoint; merge it with `python -m verl.model_merger` first"
            )
        return actor
    complete = actor / "huggingface"
    if _has_weights(complete):  # saved with checkpoint.save_contents=[..., hf_model]
        return complete
    return _merged(actor, sorted(shards))


def _merged(actor: Path, shards: list[Path]) -> Path:
    """Merges a checkpoint, or finds it merged from these very shards."""
    try:
        world_size = int(json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{actor}/fsdp_config.json cannot be read: {one_line(error)}") from error
    wanted = [actor / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    missing = [file.name for file in wanted if file not in shards]
    if missing:
        raise EvaluationError(f"{actor} is incomplete: {missing[0]} is missing ({len(missing)} of {world_size})")
    stamp = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in wanted}
    target = actor.parent / MERGED
    if _read_json(target / STAMP) == stamp:
        return target
    partial = target.with_name(f".{MERGED}.{os.getpid()}.partial")
    print(f"merging {actor} into {target} ...", flush=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(partial)]
    try:
        partial.mkdir()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise EvaluationError(f"verl's merger failed on {actor}: {reason} (command: {' '.join(command)})")
        (partial / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)  # merged from other shards
        os.replace(partial, target)
    except OSError as error:
        raise EvaluationError(f"{target} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    owner_and_name, _, revision = name.partition("@")
    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
    try:
        folder = Path(snapshot_download(owner_and_name, revision=revision or None, allow_patterns=patterns))
        if not _has_weights(folder):  # weights in the older format only
            folder = Path(
                snapshot_download(owner_and_name, revision=revision or None, allow_patterns=[*patterns, "*.bin"])
            )
    except Exception as error:  # of the hub's client and of the network
        problem = one_line(error)[:200]
        raise EvaluationError(f"{name} is no folder here, and the hub did not give it: {problem}") from error
    return folder


def _checked(name: str, folder: Path) -> Model:
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise EvaluationError(f"{folder} has no readable config.json; a model folder or a verl checkpoint is needed")
    if not any((folder / file).exists() for file in _TOKENIZER):
        raise EvaluationError(f"{folder} has no tokenizer ({', '.join(_TOKENIZER)}); save it beside the weights")
    if not _has_weights(folder):
        raise EvaluationError(f"{folder} has no weights ({', '.join(_WEIGHTS)})")
    return Model(name, folder, config)


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
