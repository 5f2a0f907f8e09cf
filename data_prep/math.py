"""MATH (Hendrycks et al. 2021), from the Hugging Face hub or from local files."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from data_prep.boxed import last_boxed
from data_prep.errors import DataError, run
from data_prep.hub import read_hub
from data_prep.names import MATH, MATH500
from data_prep.options import add_carving, make_parser
from data_prep.preparing import Preparation
from data_prep.problems import Counts, Problem, UnusableRow, key, select, take
from data_prep.sources import Field, Record, Source, find, read_records, split_files
from data_prep.templates import BOXED

FIELDS = (
    Field("problem"),
    Field("solution"),
    Field("answer", number=True, optional=True),
    Field("level", number=True, optional=True),
    Field("subject", aliases=("type",), optional=True),
    Field("unique_id", optional=True),
)
SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
# Two rows of train have the level "Level ?".
LEVELS = ("1", "2", "3", "4", "5", "?")
MATH500_FILES = ("math500", "math-500", "math_500")
NO_ANSWER = "the last box of the solution is empty"


def to_problem(record: Record) -> Problem:
    """Reads one row of MATH or MATH500; the answer is the content of the solution's last box.

    Raises:
        UnusableRow: The box is empty.
        DataError: There is no box, or the row says another answer than the box holds.
    """
    fields = record.fields
    truth = last_boxed(fields["solution"], record.where)
    if not truth:
        raise UnusableRow(NO_ANSWER)
    stated = fields.get("answer")
    if stated is not None and "".join(stated.split()) != "".join(truth.split()):
        raise DataError(
            f"{record.where}: field 'answer' says {stated!r}, the last box of 'solution' {truth!r}; mend the row"
        )
    return Problem(
        question=fields["problem"],
        answer=fields["solution"],
        truth=truth,
        index=record.index,
        name=record.name,
        id=fields.get("unique_id"),
        subject=fields.get("subject"),
        level=fields["level"].removeprefix("Level ") if "level" in fields else None,
    )


def hold_out(records: Sequence[Record], held: Sequence[Record]) -> list[Record]:
    """Takes the problems of MATH500 out of all of MATH.

    They are known by `unique_id`, and by their text where the rows of MATH have none, as on the hub.

    Args:
        records: All 12,500 problems.
        held: The 500.

    Returns:
        The other 12,000, numbered anew.

    Raises:
        DataError: One of the 500 is not there, so these are not all of MATH.
    """
    of = _identity if all("unique_id" in record.fields for record in (*records, *held)) else _text
    names = {of(record) for record in held}
    missing = names - {of(record) for record in records}
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} MATH500 problems are not in --source, such as {min(missing)[:80]!r}; "
            "--split 12k needs both the train and the test problems of MATH"
        )
    kept = [record for record in records if of(record) not in names]
    return [Record(record.fields, index, record.where) for index, record in enumerate(kept)]


def filter_problems(
    preparation: Preparation, kind: str, problems: Sequence[Problem], subjects: Sequence[str], levels: Sequence[str]
) -> list[Problem]:
    """Keeps the subjects and levels asked for; where none are named, all.

    Raises:
        DataError: A problem does not tell its subject or level.
    """
    counts, kept = preparation.counts[kind], list(problems)
    for what, wanted in (("subject", subjects), ("level", levels)):
        if not wanted:
            continue
        silent = [problem.name for problem in kept if getattr(problem, what) is None]
        if silent:
            raise DataError(f"{silent[0]}: no field {what!r}, which --{what}s filters by; leave that out or add it")
        reason = f"not of the {what}s {', '.join(wanted)}"
        kept = select(kept, lambda p, w=what, names=wanted: slug(getattr(p, w)) in names, reason, counts)
    return kept


def slug(name: str) -> str:
    """Gives a subject or level as the options spell it: `Counting & Probability` is `counting_and_probability`."""
    return re.sub(r"[^a-z0-9?]+", "_", name.lower().replace("&", "and")).removeprefix("level_")


def names_of(option: str, known: Sequence[str]) -> list[str]:
    """Reads a list of names, separated by commas.

    Raises:
        DataError: A name is not known.
    """
    names = [slug(name.strip()) for name in option.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise DataError(f"unknown name {name!r} in {option!r}; known are {', '.join(known)}")
    return names


def read_math(preparation: Preparation) -> list[Source]:
    """Reads the train and, where there is one, the test problems.

    Raises:
        DataError: A file is absent or not usable.
    """
    source = preparation.option("source")
    if not source:
        return read_hub(MATH, ["train", "test"], FIELDS, revision=preparation.option("revision"))
    if not source.is_dir():
        return [read_records(source, FIELDS)]
    return [read_records(path, FIELDS) for path in split_files(source, prefer=["math"]) if path]


def read_math500(preparation: Preparation) -> Source | None:
    """Reads MATH500, if it is asked for or needed.

    Raises:
        DataError: It is needed and not given, or not usable.
    """
    path, source = preparation.option("math500"), preparation.option("source")
    if path is None and preparation.args.split == "7.5k":
        return None
    if path is None and source is not None:
        path = find(source, MATH500_FILES, prefer=[]) if source.is_dir() else None
        if path is None:
            raise DataError(f"--split 12k holds MATH500 out and {source} has no math500 file; name one with --math500")
    if path is None:
        return read_hub(MATH500, ["test"], FIELDS)[0]
    return read_records(path, FIELDS, option="--math500")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(
        "math",
        "Writes MATH as train.parquet, validation.parquet (carved out of train, never out of test) and test.parquet.",
        BOXED,
        source="a file with the fields problem and solution (makes no test split with --split 7.5k), or a folder with "
        "one such file or folder for train and one for test, math files first",
    )
    add = parser.add_argument
    add(
        "--split",
        choices=("7.5k", "12k"),
        default="12k",
        help="7.5k = the original train and test; 12k = all 12,500 but the 500 of MATH500, which are the test split",
    )
    add(
        "--math500",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="PATH",
        help="the file with MATH500; with --split 7.5k, train problems that it has are dropped (default with 12k: the "
        "math500 file in the --source folder, or the hub)",
    )
    add("--subjects", default="", metavar="LIST", help=f"keep these alone: {', '.join(SUBJECTS)} (nothing: all)")
    add("--levels", default="", metavar="LIST", help="keep these alone, as in 3,4,5 (nothing: all)")
    add_carving(parser, validation=500)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads, holds out, filters, carves, writes and counts."""
    preparation = Preparation(parse_args(argv), MATH, BOXED)
    subjects = names_of(preparation.args.subjects, SUBJECTS)
    levels = names_of(preparation.args.levels, LEVELS)
    read, math500 = read_math(preparation), read_math500(preparation)
    preparation.sources = [source.origin for source in (*read, *([math500] if math500 else []))]
    train, *test = read
    if preparation.args.split == "12k" and math500:
        everything = [record for source in read for record in source.records]
        others = hold_out(everything, math500.records)
        preparation.notes.append(f"{len(everything)} problems without the {len(math500.records)} of MATH500")
        train, test, preparation.test_name = Source(others, {}), [math500], MATH500
    tested = preparation.take("test", test[0], to_problem) if test else []
    taken = {"test": tested}
    if math500 and preparation.args.split == "7.5k":
        taken["MATH500"] = take(math500.records, to_problem, Counts())
    trained = preparation.take("train", train, to_problem, taken)
    if tested:
        tested = filter_problems(preparation, "test", tested, subjects, levels)
    preparation.train_and_test(filter_problems(preparation, "train", trained, subjects, levels), tested)


def _identity(record: Record) -> str:
    return record.fields["unique_id"]


def _text(record: Record) -> str:
    return key(record.fields["problem"])


if __name__ == "__main__":
    run(main)
