"""A model card made of what a run recorded about itself; what it did not record, the card does not claim.

Pure: text from plain values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MEAN = re.compile(r"val-core/(?P<source>.+)/(?P<what>acc|reward)/mean@(?P<samples>\d+)")
#: Settings of verl that a reader wants to know, beside all of algorithm.spo.
_SHOWN = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.seed",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.optim.lr_scheduler_type",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "actor_rollout_ref.rollout.val_kwargs.temperature",
    "actor_rollout_ref.rollout.val_kwargs.n",
)
#: Settings of this machine, which say nothing about the model.
_NOT_SHOWN = ("dump_dir", "dump_sample", "keep_best")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What there is about a checkpoint; None for what was not recorded.

    Attributes:
        step: the checkpoint's step.
        config: run.yaml.
        facts: spo_run.json.
        progress: spo_step.json of the checkpoint.
        validation: spo_validation.json of the checkpoint.
        best: best.json.
    """

    step: int
    config: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    validation: Mapping[str, Any] | None = None
    best: Mapping[str, Any] | None = None


def model_card(recorded: Recorded, title: str) -> str:
    """Write the card.

    Args:
        recorded: what the run recorded.
        title: name of the model.

    Returns:
        Markdown with the Hugging Face hub's front matter; `license` is left for the user to fill in.
    """
    sections = [
        f"# {title}",
        _introduction(recorded),
        _validation(recorded),
        _training(recorded),
        _data(recorded),
        _settings(recorded),
        _versions(recorded),
        "## Licence\n\nTo be filled in by whoever publishes this model; the base model's and the data's terms apply.",
    ]
    return _front_matter(recorded) + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(recorded: Recorded) -> str:
    base = at(recorded.config, "actor_rollout_ref.model.path")
    content: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if isinstance(base, str) and _HUB_ID.fullmatch(base):
        content["base_model"] = base
    content["tags"] = ["reinforcement-learning", "verl", "spo"]
    return f"---\nlicense:  # fill in\n{yaml.safe_dump(content, sort_keys=False)}---\n\n"


def _introduction(recorded: Recorded) -> str:
    base = at(recorded.config, "actor_rollout_ref.model.path")
    method = at(recorded.config, "algorithm.spo.method")
    lines = [
        "Trained by reinforcement learning with [Segment Policy Optimization](https://arxiv.org/abs/2505.23564) "
        "for [verl](https://github.com/verl-project/verl). This card is made of what the run recorded.",
        "",
    ]
    name = at(recorded.config, "trainer.experiment_name")
    lines += [f"* base model: `{_place(base)}`"] if base else ["* base model: not recorded"]
    lines += [f"* method: {method}" + (f" (`{name}`)" if name else "")] if method else ["* method: not recorded"]
    return "\n".join([*lines, f"* step: {recorded.step}"])


def _validation(recorded: Recorded) -> str:
    history = {int(step): entry for step, entry in ((recorded.progress or {}).get("validations") or {}).items()}
    if recorded.validation is not None:
        history[recorded.step] = recorded.validation
    rows = [
        f"| {step} | {match['source']} | {match['what']}, mean of {match['samples']} | "
        f"{_with_error(value, match['what'], (entry.get('problems') or {}).get(match['source']))} |"
        for step, entry in sorted(history.items())
        if step <= recorded.step
        for name, value in sorted(entry["metrics"].items())
        if (match := _MEAN.fullmatch(name))
    ]
    if not rows:
        return "## Validation\n\nNone was recorded."
    lines = ["## Validation", "", "| after step | data | metric | value |", "|---|---|---|---|", *rows]
    if recorded.step not in history:
        lines += ["", "This checkpoint itself was not validated."]
    lines += ["", "± is one binomial standard error over the problems; of several samples a problem, an upper bound."]
    best = recorded.best
    if best is not None and best["step"] == recorded.step and best.get("run") == (recorded.progress or {}).get("run"):
        among = len(best.get("chosen_among") or {})
        lines += [
            "",
            f"It is the best of {among} validated checkpoints by {best['metric']}: its value is the highest of {among} "
            "noisy ones, and so a little too high.",
        ]
    return "\n".join(lines)


def _with_error(value: float, what: str, problems: int | None) -> str:
    if problems is None:
        return f"{value:.4f}"
    if what != "acc" or not 0 <= value <= 1:
        return f"{value:.4f} (n = {problems:,})"
    return f"{value:.1%} ± {math.sqrt(value * (1 - value) / problems):.1%} (n = {problems:,})"


def _training(recorded: Recorded) -> str:
    progress = recorded.progress
    if progress is None:
        return "## Training\n\nNot recorded."
    since = progress["counted_from"]
    lines = [f"* {name.replace('_', ' ')}: {int(number):,}" for name, number in progress["totals"].items()]
    if since > 1:
        lines.append(f"* counted from step {since}; what came before was not recorded")
    return "\n".join(["## Training", "", f"* steps: {recorded.step:,}", *lines])


def _data(recorded: Recorded) -> str:
    if recorded.facts is None:
        return "## Data and grader\n\nNot recorded."
    lines = []
    for key, files in recorded.facts["data"].items():
        for file in files:
            more = f", data set `{file['data_set']}`" if file.get("data_set") else ""
            if file.get("manifest_sha256"):
                more += f", manifest SHA-256 `{file['manifest_sha256']}`"
            lines.append(f"* {key.removesuffix('_files')}: `{file['file']}`{more}")
    grader = recorded.facts.get("grader") or {}
    if grader.get("path"):
        arguments = grader.get("reward_kwargs")
        lines.append(
            f"* grader: `{_place(grader['path'])}:{grader.get('name')}`" + (f" with `{arguments}`" if arguments else "")
        )
    else:
        lines.append("* grader: verl's own, by data source")
    return "\n".join(["## Data and grader", "", *lines])


def _settings(recorded: Recorded) -> str:
    if recorded.config is None:
        return "## Settings\n\nNot recorded."
    spo = at(recorded.config, "algorithm.spo") or {}
    shown = {"algorithm.spo": {name: value for name, value in spo.items() if name not in _NOT_SHOWN}}
    shown |= {key: value for key in _SHOWN if (value := at(recorded.config, key)) is not None}
    return f"## Settings\n\n```yaml\n{yaml.safe_dump(shown, sort_keys=False)}```"


def _versions(recorded: Recorded) -> str:
    versions = (recorded.facts or {}).get("versions")
    if not versions:
        return ""
    return "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in versions.items())


def at(content: Any, key: str) -> Any:
    """The value of a dotted key in nested mappings; None where it is not there."""
    for name in key.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _place(path: str) -> str:
    """A hub id or a name; of a folder of somebody's machine only the last part."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", ".", "~")) else path
