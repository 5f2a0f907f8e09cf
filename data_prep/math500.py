"""MATH500, the 500 problems of MATH that prm800k holds out: a test split only."""

import argparse
from collections.abc import Sequence

from data_prep.errors import run
from data_prep.hub import read_hub
from data_prep.math import FIELDS, MATH500_FILES, to_problem
from data_prep.names import MATH500
from data_prep.options import add_against, make_parser
from data_prep.preparing import Preparation
from data_prep.sources import read_records, size_notes, test_file
from data_prep.templates import BOXED

SIZE = 500


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(
        "math500",
        "Writes MATH500 as test.parquet, for evaluation only.",
        BOXED,
        source="a file with the fields problem and solution, or a folder with a math500 file",
    )
    add_against(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads, writes and counts."""
    preparation = Preparation(parse_args(argv), MATH500, BOXED)
    path = preparation.option("source")
    if path is None:
        source = read_hub(MATH500, ["test"], FIELDS, revision=preparation.option("revision"))[0]
    else:
        source = read_records(test_file(path, MATH500_FILES) if path.is_dir() else path, FIELDS)
    preparation.sources = [source.origin]
    preparation.notes += size_notes("MATH500", SIZE, source)
    preparation.test_only(preparation.take("test", source, to_problem))


if __name__ == "__main__":
    run(main)
