"""AIME 2024, both papers: 30 problems whose answers are whole numbers from 0 to 999; a test split only."""

import argparse
from collections.abc import Sequence

from data_prep.errors import DataError, run
from data_prep.hub import read_hub
from data_prep.names import AIME24
from data_prep.options import add_against, make_parser
from data_prep.preparing import Preparation
from data_prep.problems import Problem
from data_prep.sources import Field, Record, read_records, size_notes, test_file
from data_prep.templates import BOXED

# HuggingFaceH4/aime_2024 spells its fields in lower case, Maxwell-Jia/AIME_2024 with capitals.
FIELDS = (
    Field("problem", aliases=("Problem",)),
    Field("answer", aliases=("Answer",), number=True),
    Field("solution", aliases=("Solution",), optional=True),
    Field("id", aliases=("ID",), number=True, optional=True),
)
SIZE = 30


def to_problem(record: Record) -> Problem:
    """Reads one row.

    Raises:
        DataError: The answer is no whole number from 0 to 999.
    """
    answer = record.fields["answer"].strip()
    if not (answer.isascii() and answer.isdecimal() and int(answer) <= 999):
        raise DataError(f"{record.where}: field 'answer' is {answer!r}, not a whole number from 0 to 999; mend the row")
    return Problem(
        question=record.fields["problem"],
        answer=record.fields.get("solution", ""),
        truth=str(int(answer)),  # papers write 033
        index=record.index,
        name=record.name,
        id=record.fields.get("id"),
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(
        "aime24",
        "Writes AIME 2024 as test.parquet, for evaluation only.",
        BOXED,
        source="a file with the fields problem and answer, or a folder with an aime file",
    )
    add_against(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads, writes and counts."""
    preparation = Preparation(parse_args(argv), AIME24, BOXED)
    path = preparation.option("source")
    if path is None:
        # The hub has these test problems under the name train.
        source = read_hub(AIME24, ["train"], FIELDS, revision=preparation.option("revision"))[0]
    else:
        source = read_records(test_file(path, ["aime"]) if path.is_dir() else path, FIELDS)
    preparation.sources = [source.origin]
    preparation.notes += size_notes("AIME 2024", SIZE, source)
    preparation.test_only(preparation.take("test", source, to_problem))


if __name__ == "__main__":
    run(main)
