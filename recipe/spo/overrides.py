"""The command line's overrides, looked at before Hydra composes anything.

Hydra answers a misspelt key with a call for a `+`, and a key of another method with a puzzle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from recipe.spo.reader import SettingsError, unknown_key

#: config/method/NAME.yaml -> the node of `algorithm.spo` that shapes its rollouts.
METHOD_SHAPES = {
    "tree": "tree",
    "chain": "chain",
    "vineppo": "chain",
    "equal_parts": "chain",
    "grpo": "group",
    "grpo_mask": "group",
    "rloo": "group",
    "reinforce_pp": "group",
    "ppo": "group",
}
EXPERIMENTS = Path(__file__).with_name("config") / "experiments"
#: With one of these a configuration file decides on the method.
CONFIG_FLAGS = ("--config-name", "--config-dir", "--config-path", "-cn", "-cd", "-cp")


def check_override_names(arguments: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
    """Catch keys that cannot be meant.

    Args:
        arguments: the command line.
        known: the keys of `algorithm.spo` and of the nodes under it.

    Raises:
        SettingsError: naming the key, and what to write instead.
    """
    names = [argument.lstrip("+~").split("=", 1)[0] for argument in arguments]
    for name in names:
        where, _, leaf = name.rpartition(".")
        if where in known and leaf not in known[where]:
            raise unknown_key(where, leaf, known[where])
    if "algorithm.spo.method" in names:
        raise SettingsError(f"algorithm.spo.method: choose with method=NAME, one of {', '.join(METHOD_SHAPES)}")
    if any(argument.startswith(CONFIG_FLAGS) for argument in arguments):
        return
    chosen = chosen_method(dict(argument.split("=", 1) for argument in arguments if "=" in argument))
    if chosen and chosen not in METHOD_SHAPES and not chosen.startswith("${"):
        raise SettingsError(f"method={chosen} is not known: choose one of {', '.join(METHOD_SHAPES)}")
    shape = METHOD_SHAPES.get(chosen)
    for name in names:
        other = name.removeprefix("algorithm.spo.").split(".")[0]
        if name.startswith("algorithm.spo.") and shape and other in set(METHOD_SHAPES.values()) - {shape}:
            fitting = ", ".join(f"method={method}" for method, node in METHOD_SHAPES.items() if node == other)
            raise SettingsError(f"{name}: method={chosen} does not use algorithm.spo.{other}; it belongs to {fitting}")


def check_hardware_choice(arguments: Sequence[str], cpu: bool) -> None:
    """Refuse a GPU's settings for a run on the CPU; `platform=gpu` makes it a plan for GPUs.

    Args:
        arguments: the command line.
        cpu: whether this machine runs on the CPU.

    Raises:
        SettingsError: naming the choice.
    """
    choices = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    hardware = choices.get("hardware")
    if cpu and hardware and choices.get("platform") != "gpu":
        raise SettingsError(
            f"hardware={hardware} is for GPUs, and this machine runs on the CPU: leave it out, or add platform=gpu "
            "to `python -m recipe.spo.plan`"
        )


def chosen_method(choices: Mapping[str, str]) -> str:
    """The method that a command line's `key=value` arguments come to: by name, by an experiment, or the default.

    Of an experiment that is not there Hydra complains and lists those that are; here it is "".
    """
    if "method" in choices or "experiments" not in choices:
        return choices.get("method", "tree")
    path = EXPERIMENTS / f"{choices['experiments']}.yaml"
    if not path.is_file():
        return ""
    parts = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", [])
    return next((part["override /method"] for part in parts if "override /method" in part), "tree")
