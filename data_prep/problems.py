"""The pure part of every preparation: dropping with a reason, carving, and what the splits share."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from data_prep.errors import DataError
from data_prep.sources import Record

# So many names are printed of what is dropped for one reason; the manifest has them all.
PRINTED = 10


@dataclass(frozen=True)
class Problem:
    """A problem, whatever data set it is from.

    Attributes:
        question: The problem as the data set words it.
        answer: The worked solution; may be empty.
        truth: The final answer that the reward compares with.
        index: Number of the problem, unique within its split.
        name: What it is called in reports: its id, or its place in the source.
        id: Its id, where the source gives one.
        subject: Its field of mathematics, where the source gives one.
        level: Its difficulty, where the source gives one.
        tokens: Length of its prompt, where it has been measured.
    """

    question: str
    answer: str
    truth: str
    index: int
    name: str
    id: str | None = None
    subject: str | None = None
    level: str | None = None
    tokens: int | None = None


@dataclass
class Counts:
    """What became of the rows of one source.

    Attributes:
        read: Rows read.
        unusable: Rows dropped because they hold no answer.
        dropped: Names of the rows dropped, by reason; the unusable ones too.
        kept: Rows kept by split.
    """

    read: int = 0
    unusable: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, name: str) -> None:
        """Counts a row as dropped."""
        self.dropped.setdefault(reason, []).append(name)


class UnusableRow(Exception):
    """A row without a usable answer, which its data set is known to have: it is dropped, and the reason counted."""


def key(question: str) -> str:
    """Gives what two wordings of a question have in common: white space and capitals do not make another question."""
    return "".join(question.split()).casefold()


def take(records: Iterable[Record], read: Callable[[Record], Problem], counts: Counts) -> list[Problem]:
    """Turns records into problems and counts them.

    Args:
        records: The rows of a source.
        read: Makes a problem of a record, or raises `UnusableRow`.
        counts: Counts of the source, filled in.
    """
    problems = []
    for record in records:
        counts.read += 1
        try:
            problems.append(read(record))
        except UnusableRow as reason:
            counts.unusable += 1
            counts.drop(str(reason), record.name)
    return problems


def distinct(
    problems: Iterable[Problem], counts: Counts, taken: Mapping[str, Sequence[Problem]] | None = None
) -> list[Problem]:
    """Drops what occurs twice: in these problems, or here and among those already taken.

    Args:
        problems: The problems; of two that are the same, the first is kept.
        counts: Counts of their source, filled in.
        taken: Problems of other splits, by words for their place.
    """
    seen = {key(problem.question): place for place, others in (taken or {}).items() for problem in others}
    kept = []
    for problem in problems:
        place = seen.get(key(problem.question))
        if place is None:
            seen[key(problem.question)] = "this file"
            kept.append(problem)
        else:
            counts.drop(f"the same question is in {place}", problem.name)
    return kept


def select(
    problems: Iterable[Problem], wanted: Callable[[Problem], bool], reason: str, counts: Counts
) -> list[Problem]:
    """Keeps the wanted problems and counts the others as dropped."""
    kept = []
    for problem in problems:
        if wanted(problem):
            kept.append(problem)
        else:
            counts.drop(reason, problem.name)
    return kept


def carve(train: Sequence[Problem], validation: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Carves a validation split out of train, at random.

    Args:
        train: The problems to carve from.
        validation: Number of problems to carve out.
        seed: Seed of the choice.

    Returns:
        What is left of train, and the validation problems, both in the order given.

    Raises:
        DataError: Train has too few problems.
    """
    if not 1 <= validation < len(train):
        raise DataError(
            f"--validation {validation} must be at least 1 and leave some of the {len(train)} train problems"
        )
    carved = set(random.Random(seed).sample(range(len(train)), validation))
    return (
        [problem for i, problem in enumerate(train) if i not in carved],
        [problem for i, problem in enumerate(train) if i in carved],
    )


def overlaps(splits: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Counts the questions that two splits share, for every two splits.

    Args:
        splits: The questions by split.

    Returns:
        The counts by the names of the two splits, as in `train/test`.
    """
    keys = {split: {key(question) for question in questions} for split, questions in splits.items()}
    names = list(keys)
    return {
        f"{first}/{second}": len(keys[first] & keys[second])
        for position, first in enumerate(names)
        for second in names[position + 1 :]
    }


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """Gives the median, the 99th percentile (both by nearest rank) and the maximum of some lengths."""
    ordered = sorted(lengths)
    rank = {"median": 50, "p99": 99, "max": 100}
    return {name: ordered[max(0, -(-percent * len(ordered) // 100) - 1)] for name, percent in rank.items()}


def report(counts: Mapping[str, Counts]) -> str:
    """Tabulates what was read, usable, kept and dropped, and names what was dropped."""
    lines = [f"{'source':8}{'read':>8}{'usable':>8}{'kept':>8}{'dropped':>9}  kept as"]
    for source, count in counts.items():
        kept, dropped = sum(count.kept.values()), sum(map(len, count.dropped.values()))
        parts = ", ".join(f"{split} {n}" for split, n in count.kept.items()) or "-"
        lines.append(f"{source:8}{count.read:8}{count.read - count.unusable:8}{kept:8}{dropped:9}  {parts}")
        for reason, names in sorted(count.dropped.items()):
            lines.append(f"  dropped {len(names)}: {reason}")
            more = f" and {len(names) - PRINTED} more, see the manifest" if len(names) > PRINTED else ""
            lines.append(f"    {', '.join(names[:PRINTED])}{more}")
    return "\n".join(lines)
