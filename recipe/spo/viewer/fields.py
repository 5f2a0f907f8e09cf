"""Taking fields out of a dumped record, with complaints that name the file, the line and the field."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from recipe.spo.viewer.errors import ViewError

#: How far above 0 a log-probability may be.
LOG_PROB_ROUNDING = 0.01


class Fields:
    """An object of a record whose fields are checked as they are taken.

    Args:
        where: file and line.
        content: the object.
        path: where in the record it stands, such as `root.children[2]`; empty for the record itself.

    Raises:
        ViewError: it is no object. Every method raises it for a field that is missing or of the wrong kind.
    """

    def __init__(self, where: str, content: Any, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(content, Mapping):
            raise ViewError(f"{where}{f', field {path}' if path else ''}: must be an object, not {_shown(content)}")
        self.content = content

    def wrong(self, name: str, must: str) -> ViewError:
        """The complaint about a field."""
        full = f"{self.path}.{name}" if self.path else name
        found = f"not {_shown(self.content[name])}" if name in self.content else "and is missing"
        return ViewError(f"{self.where}, field {full}: must be {must}, {found}")

    def text(self, name: str) -> str:
        return self._of(name, str, "a string")

    def text_or_none(self, name: str) -> str | None:
        return None if self._is_null(name) else self.text(name)

    def truth(self, name: str) -> bool:
        return self._of(name, bool, "true or false")

    def whole(self, name: str) -> int:
        value = self.content.get(name)
        if type(value) is not int:
            raise self.wrong(name, "a whole number")
        return value

    def number_or_none(self, name: str) -> float | None:
        value = self.content.get(name, math.nan)
        if value is not None and not _is_number(value):
            raise self.wrong(name, "a number or null")
        return value

    def numbers(self, name: str, length: int | None = None) -> list[float]:
        """A list of finite numbers, of the given length if there is one."""
        return self._list(name, _is_number, "finite numbers", length)

    def log_probs(self, name: str, length: int) -> list[float]:
        """Numbers of at most 0, which may be above it by an engine's rounding."""
        values = self.numbers(name, length)
        for value in values:
            if value > LOG_PROB_ROUNDING:
                raise self.wrong(name, f"a list of log-probabilities, at most 0 (one is {_shown(value)})")
        return values

    def ids(self, name: str, length: int | None = None) -> list[int]:
        return self._list(name, lambda item: type(item) is int and item >= 0, "token ids", length)

    def texts(self, name: str, length: int) -> list[str]:
        return self._list(name, lambda item: isinstance(item, str), "strings", length)

    def numbers_or_none(self, name: str, length: int) -> list[float] | None:
        return None if self._is_null(name) else self.numbers(name, length)

    def object(self, name: str) -> Fields:
        return Fields(self.where, self._of(name, Mapping, "an object"), f"{self.path}.{name}" if self.path else name)

    def objects(self, name: str) -> Iterator[Fields]:
        """The objects of a list."""
        path = f"{self.path}.{name}" if self.path else name
        for index, item in enumerate(self._of(name, list, "a list")):
            yield Fields(self.where, item, f"{path}[{index}]")

    def _is_null(self, name: str) -> bool:
        return name in self.content and self.content[name] is None

    def _of(self, name: str, kind: type, must: str) -> Any:
        if not isinstance(self.content.get(name), kind):
            raise self.wrong(name, must)
        return self.content[name]

    def _list(self, name: str, good: Any, what: str, length: int | None) -> list:
        values = self._of(name, list, f"a list of {what}")
        if not all(map(good, values)):
            raise self.wrong(name, f"a list of {what}")
        if length is not None and len(values) != length:
            raise self.wrong(name, f"a list of {length} {what}, one a token")
        return values


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is larger than any float
        return False


def _shown(value: Any) -> str:
    shown = reprlib.repr(value)  # of any length and depth
    return shown if len(shown) <= 40 else shown[:37] + "..."
