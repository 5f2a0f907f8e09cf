"""GSM8K, from the Hugging Face hub or from local files."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import DataError, run
from data_prep.hub import read_hub
from data_prep.names import GSM8K
from data_prep.options import add_carving, make_parser
from data_prep.preparing import Preparation
from data_prep.problems import Problem
from data_prep.sources import Field, Record, Source, read_records, split_files
from data_prep.templates import HASHES

FIELDS = (Field("question"), Field("answer"))


def final_answer(solution: str, where: str) -> str:
    """Takes the final answer out of a worked solution, without thousands commas.

    Args:
        solution: The worked solution; its last `####` is followed by the answer.
        where: Words for the place of the solution, for the error.

    Raises:
        DataError: There is no `####`, or no number after it.
    """
    _, marker, tail = solution.rpartition("####")
    if not marker:
        raise DataError(f"{where}: field 'answer' has no '####' before its final answer; add it")
    answer = tail.replace(",", "").strip()
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", answer):
        raise DataError(f"{where}: field 'answer' has {answer!r} after '####', not a number")
    return answer


def to_problem(record: Record) -> Problem:
    """Reads one row.

    Raises:
        DataError: Its answer is not usable.
    """
    answer = record.fields["answer"]
    return Problem(
        question=record.fields["question"],
        answer=answer,
        truth=final_answer(answer, record.where),
        index=record.index,
        name=record.name,
    )


def read_local(source: Path) -> list[Source]:
    """Reads a train file, or the train and test files of a folder.

    Raises:
        DataError: A file is absent or not usable.
    """
    if not source.is_dir():
        return [read_records(source, FIELDS)]
    train, test = split_files(source, prefer=["gsm8k"])
    return [read_records(path, FIELDS) for path in (train, test) if path]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(
        "gsm8k",
        "Writes GSM8K as train.parquet, validation.parquet (carved out of train, never out of test) and test.parquet.",
        HASHES,
        source="a file with the fields question and answer (makes no test split), or a folder with one such file named "
        "like train and one named like test, gsm8k files first",
    )
    add_carving(parser, validation=373)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads, carves, writes and counts."""
    preparation = Preparation(parse_args(argv), GSM8K, HASHES)
    source = preparation.option("source")
    if source:
        train, *test = read_local(source)
    else:
        train, *test = read_hub(
            GSM8K, ["train", "test"], FIELDS, config="main", revision=preparation.option("revision")
        )
    preparation.sources = [read.origin for read in (train, *test)]
    tested = preparation.take("test", test[0], to_problem) if test else []
    trained = preparation.take("train", train, to_problem, {"test": tested})
    preparation.train_and_test(trained, tested)


if __name__ == "__main__":
    run(main)
