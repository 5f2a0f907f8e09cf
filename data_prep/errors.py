"""Errors that a user can mend, and how a command ends on one."""

import sys
from collections.abc import Callable


class DataError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Runs a command; an error of the user's ends it with one line on stderr and exit status 2."""
    try:
        main()
    except (DataError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def one_line(error: BaseException) -> str:
    """Gives an error's message on one line."""
    return " ".join(str(error).split())
