"""`algorithm.spo` as a typed, validated object; the one place that knows which settings are legal.

Every key is explained in `config/spo_trainer.yaml`. Everything is checked before Ray starts, and
each complaint names the key and says what to do.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf


class SettingsError(ValueError):
    """A setting that cannot work; the message names the key and the remedy."""


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """Shape of the tree.

    Attributes:
        branch_factors: children of a node at depth 0, 1, ...; its length is the tree's depth.
        segment_length: most tokens of a segment at every level but the last, which runs to the end
            of the response budget; one number, or one for each of those levels.
    """

    branch_factors: tuple[int, ...]
    segment_length: int | tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.branch_factors)

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Token budget of each level but the last."""
        if isinstance(self.segment_length, int):
            return (self.segment_length,) * (self.depth - 1)
        return self.segment_length

    def segment_budget(self, depth: int, used: int, response_length: int) -> int:
        """Most tokens of a segment that leaves a node at `depth` with `used` response tokens."""
        left = response_length - used
        return left if depth == self.depth - 1 else min(self.segment_lengths[depth], left)

    @property
    def max_nodes(self) -> int:
        """Segments of a full tree, e.g. 6 + 36 + 216 = 258 for 6-6-6."""
        total, width = 0, 1
        for factor in self.branch_factors:
            width *= factor
            total += width
        return total


@dataclass(frozen=True, slots=True)
class SPOSettings:
    """`algorithm.spo`. See `config/spo_trainer.yaml` for what each key means."""

    method: str
    tree: TreeSettings
    mask_threshold: float | None
    optimizer_steps: int
    unfinished_reward: float
    deterministic: bool
    dump_dir: str | None


METHODS = ("tree",)


def settings_of(config: DictConfig, response_length: int) -> SPOSettings:
    """Read and check `algorithm.spo` of a whole configuration; see `parse_settings`."""
    node = config.algorithm.get("spo")
    plain = None if node is None else OmegaConf.to_container(node, resolve=True)
    return parse_settings(plain, response_length)


def parse_settings(node: Mapping[str, Any] | None, response_length: int) -> SPOSettings:
    """Read and check `algorithm.spo`.

    Args:
        node: the configuration node, as a mapping of plain values.
        response_length: `data.max_response_length`, in tokens.

    Raises:
        SettingsError: a key is missing, unknown, of the wrong type or out of range.
    """
    if node is None:
        raise SettingsError(
            "algorithm.spo is missing: start from recipe/spo/config/spo_trainer.yaml (--config-name spo_trainer)"
        )
    _check_keys("algorithm.spo", node, [f.name for f in fields(SPOSettings)])
    method = node["method"]
    if method not in METHODS:
        raise SettingsError(f"algorithm.spo.method is {method!r}: choose one of {', '.join(METHODS)}")
    return SPOSettings(
        method=method,
        tree=_parse_tree(node["tree"], response_length),
        mask_threshold=_parse_threshold("algorithm.spo.mask_threshold", node["mask_threshold"]),
        optimizer_steps=_positive_int("algorithm.spo.optimizer_steps", node["optimizer_steps"]),
        unfinished_reward=_number("algorithm.spo.unfinished_reward", node["unfinished_reward"]),
        deterministic=_boolean("algorithm.spo.deterministic", node["deterministic"]),
        dump_dir=_optional_text("algorithm.spo.dump_dir", node["dump_dir"]),
    )


def _parse_tree(node: Any, response_length: int) -> TreeSettings:
    if not isinstance(node, Mapping):
        raise SettingsError("algorithm.spo.tree must hold branch_factors and segment_length")
    _check_keys("algorithm.spo.tree", node, [f.name for f in fields(TreeSettings)])

    key = "algorithm.spo.tree.branch_factors"
    factors = node["branch_factors"]
    if not _is_list(factors):
        raise SettingsError(f"{key} is {factors!r}: give a list with one number a level, such as [6,6,6]")
    if len(factors) == 0:
        raise SettingsError(f"{key} is empty: give a list with one number a level, such as [6,6,6]")
    for level, factor in enumerate(factors):
        if _positive_int(f"{key}[{level}]", factor) == 1 and len(factors) == 1:
            raise SettingsError(f"{key} is [1]: a single child has no sibling to be compared with")
    if all(factor == 1 for factor in factors):
        raise SettingsError(f"{key} is {list(factors)}: some level must branch, or every advantage is zero")

    key = "algorithm.spo.tree.segment_length"
    length = node["segment_length"]
    inner_levels = len(factors) - 1
    if _is_list(length):
        if len(length) != inner_levels:
            raise SettingsError(
                f"{key} lists {len(length)} levels, but {len(factors)} branch factors need {inner_levels}: "
                "one for each level but the last, which runs to data.max_response_length"
            )
        lengths: int | tuple[int, ...] = tuple(_positive_int(f"{key}[{level}]", n) for level, n in enumerate(length))
    else:
        lengths = _positive_int(key, length)
    tree = TreeSettings(tuple(factors), lengths)
    if sum(tree.segment_lengths) >= response_length:
        raise SettingsError(
            f"{key}: {inner_levels} levels of {list(tree.segment_lengths)} tokens leave nothing of "
            f"data.max_response_length={response_length} for the last level: shorten the segments, use fewer "
            "levels, or raise data.max_response_length"
        )
    return tree


def unknown_key(where: str, name: str, known: Sequence[str]) -> SettingsError:
    """The complaint about a key that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return SettingsError(f"unknown key {where}.{name}: {hint}known keys are {', '.join(known)}")


def _check_keys(where: str, node: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in node:
        if name not in known:
            raise unknown_key(where, str(name), known)
    for name in known:
        if name not in node:
            raise SettingsError(f"{where}.{name} is missing: see recipe/spo/config/spo_trainer.yaml")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _positive_int(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{key} is {value!r}: it must be a whole number of at least 1")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{key} is {value!r}: it must be a number")
    return float(value)


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} is {value!r}: it must be true or false")
    return value


def _optional_text(key: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SettingsError(f"{key} is {value!r}: it must be a path or null")
    return value or None


def _parse_threshold(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if not 0.0 < _number(key, value) <= 1.0:
        raise SettingsError(f"{key} is {value!r}: a probability in (0, 1], or null for no mask")
    return float(value)
