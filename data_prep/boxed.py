"""The last `\\boxed` of a worked solution, which holds MATH's final answer."""

import re

from data_prep.errors import DataError

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")


def last_boxed(solution: str, where: str) -> str:
    r"""Takes the content of the last `\boxed` or `\fbox`.

    Braces inside the box are balanced (escaped ones do not count), and so `\boxed{\frac{1}{2}}` gives
    `\frac{1}{2}`. Without braces, as in `\boxed 2$`, the content reaches up to the next `$` or white space.

    Args:
        solution: The worked solution.
        where: Words for the place of the solution, for the error.

    Returns:
        The content without white space around it; empty where the box is empty.

    Raises:
        DataError: There is no box, or its brace is not closed.
    """
    starts = [match.end() for match in _BOX.finditer(solution)]
    if not starts:
        raise DataError(f"{where}: field 'solution' has no \\boxed around its final answer; add it or delete the row")
    rest = solution[starts[-1] :]
    if not rest.startswith("{"):
        return re.split(r"[$\s]", rest, maxsplit=1)[0]
    depth, escaped = 0, False
    for position, letter in enumerate(rest):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return rest[1:position].strip()
    raise DataError(f"{where}: field 'solution' has a last \\boxed whose brace is never closed; mend the row")
