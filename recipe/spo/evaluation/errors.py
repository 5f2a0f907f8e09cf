"""The error of an evaluation's user, and the last way in which text reaches a terminal line."""

from __future__ import annotations


class EvaluationError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
