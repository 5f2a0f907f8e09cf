"""Reading a configuration node key by key, with complaints that name the key and the remedy.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

WHERE_KEYS_ARE_EXPLAINED = "recipe/spo/config/spo_trainer.yaml"


class SettingsError(ValueError):
    """A setting that cannot work; the message names the key and the remedy."""


class Reader:
    """A node of the configuration whose keys must be exactly the known ones.

    Args:
        where: the node's full key, such as `algorithm.spo.tree`.
        node: the node as plain values.
        known: the keys that it must hold.

    Raises:
        SettingsError: the node is no mapping, lacks a key or holds an unknown one. Every method
            raises it too, for a value of the wrong type or out of range.
    """

    def __init__(self, where: str, node: Any, known: Sequence[str]) -> None:
        if not isinstance(node, Mapping):
            raise SettingsError(f"{where} is {node!r}: it must hold {', '.join(known)}")
        for name in node:
            if name not in known:
                raise unknown_key(where, str(name), known)
        for name in known:
            if name not in node:
                raise SettingsError(f"{where}.{name} is missing: see {WHERE_KEYS_ARE_EXPLAINED}")
        self.where = where
        self.node = node

    def key(self, name: str) -> str:
        return f"{self.where}.{name}"

    def wrong(self, name: str, remedy: str) -> SettingsError:
        """The complaint about the value of a key."""
        return SettingsError(f"{self.key(name)} is {self.node[name]!r}: {remedy}")

    def raw(self, name: str) -> Any:
        return self.node[name]

    def is_null(self, name: str) -> bool:
        return self.node[name] is None

    def whole(self, name: str, least: int = 1) -> int:
        return whole(self.key(name), self.node[name], least)

    def whole_list(self, name: str, example: str) -> tuple[int, ...]:
        """A list of whole numbers of at least 1."""
        values = self.node[name]
        if not is_list(values):
            raise self.wrong(name, f"give a list with one number a level, such as {example}")
        return tuple(whole(f"{self.key(name)}[{level}]", value) for level, value in enumerate(values))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list, perhaps empty, of texts that are not."""
        values = self.node[name]
        if not is_list(values) or not all(isinstance(value, str) and value for value in values):
            raise self.wrong(name, "give a list of texts, none of them empty, such as ['###'], or []")
        return tuple(values)

    def number(self, name: str, least: float = -math.inf) -> float:
        value = self.node[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "it must be a number")
        if value < least:
            raise self.wrong(name, f"it must be at least {least:g}")
        return float(value)

    def probability(self, name: str, or_null: str) -> float:
        """A threshold in (0, 1]; `or_null` says in the complaint what null means, if anything."""
        value = self.number(name)
        if not 0.0 < value <= 1.0:
            raise self.wrong(name, f"a probability in (0, 1]{or_null}")
        return value

    def boolean(self, name: str) -> bool:
        if not isinstance(self.node[name], bool):
            raise self.wrong(name, "it must be true or false")
        return self.node[name]

    def path(self, name: str) -> str | None:
        value = self.node[name]
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "it must be a path or null")
        return value or None

    def choice(self, name: str, options: Sequence[str]) -> str:
        if self.node[name] not in options:
            raise self.wrong(name, f"choose one of {', '.join(options)}")
        return self.node[name]

    def unused(self, name: str, why: str) -> None:
        """Refuse a value for a key that would be ignored."""
        if self.node[name] is not None:
            raise self.wrong(name, f"{why}; set it to null")


def unknown_key(where: str, name: str, known: Sequence[str]) -> SettingsError:
    """The complaint about a key that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return SettingsError(f"unknown key {where}.{name}: {hint}known keys are {', '.join(known)}")


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def whole(key: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(f"{key} is {value!r}: it must be a whole number of at least {least}")
    return value
