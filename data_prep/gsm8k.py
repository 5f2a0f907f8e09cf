"""GSM8K, from the Hugging Face hub or from local files."""

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.sources import SUFFIXES, Record, read_records, text_field
from data_prep.writer import DataError, Row, make_row, one_line, run, write_splits

DATA_SOURCE = "openai/gsm8k"
HUB = ("openai/gsm8k", "main")
FIELDS = ("question", "answer")
INSTRUCTION = 'Let\'s think step by step and write the final answer, a number only, after "####" on the last line.'


@dataclass
class Counts:
    """What became of the rows of one source split."""

    read: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


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


def prepare(
    train: Sequence[Record],
    test: Sequence[Record],
    *,
    validation: int = 373,
    instruction: str = INSTRUCTION,
    seed: int = 0,
) -> tuple[dict[str, list[Row]], dict[str, Counts]]:
    """Turns GSM8K's records into rows, carving the validation split out of train.

    A question that occurs again in its own file is dropped, and so is a train question that occurs
    in test: no question is in two splits.

    Args:
        train: Records of the train file.
        test: Records of the test file; none makes no test split.
        validation: Number of problems carved out of train.
        instruction: Put after the question in the prompt; may be empty.
        seed: Seed of the choice of validation problems.

    Returns:
        The rows by split, and the counts by source split.

    Raises:
        DataError: An answer is not usable, or train has too few rows.
    """
    counts = {"train": Counts(len(train)), "test": Counts(len(test))}
    tested = _distinct(test, counts["test"], taken={})
    trained = _distinct(train, counts["train"], taken={_key(record): "test" for record in tested})
    if not 1 <= validation < len(trained):
        raise DataError(
            f"--validation {validation} must be at least 1 and leave some of the {len(trained)} train problems"
        )
    carved = set(random.Random(seed).sample(range(len(trained)), validation))
    splits = {
        "train": [record for i, record in enumerate(trained) if i not in carved],
        "validation": [record for i, record in enumerate(trained) if i in carved],
        "test": tested,
    }
    rows = {
        split: [_row(record, split, instruction) for record in records]
        for split, records in splits.items()
        if records or split != "test"
    }
    for split, made in rows.items():
        counts["test" if split == "test" else "train"].kept[split] = len(made)
    return rows, counts


def read_source(source: Path) -> tuple[list[Record], list[Record]]:
    """Reads the train and test records of a local file (train only) or folder.

    Raises:
        DataError: There is no such file, or the folder has no or more than one train file.
    """
    if not source.is_dir():
        return read_records(source, FIELDS), []
    train, test = _file_of(source, "train"), _file_of(source, "test")
    if train is None:
        raise DataError(
            f"{source} has no train file: none of its {' or '.join(SUFFIXES)} files has 'train' in its name"
        )
    return read_records(train, FIELDS), read_records(test, FIELDS) if test else []


def read_hub() -> tuple[list[Record], list[Record]]:
    """Reads the train and test records from the Hugging Face hub.

    Raises:
        DataError: The hub does not give them.
    """
    import datasets  # slow to import and needed for the hub only

    name = "/".join(HUB)
    try:
        loaded = datasets.load_dataset(*HUB)
    except Exception as error:  # the hub client's errors share no base class
        raise DataError(
            f"cannot load {name} from the Hugging Face hub ({type(error).__name__}: "
            f"{one_line(error)}); check the network, or give local files with --source"
        ) from error
    read = []
    for split in ("train", "test"):
        records = []
        for index, row in enumerate(loaded[split]):
            where = f"{name} {split}, row {index + 1}"
            records.append(Record({f: text_field(row, f, where) for f in FIELDS}, index, where))
        read.append(records)
    return read[0], read[1]


def report(counts: dict[str, Counts]) -> str:
    """Tabulates what was read, kept and dropped."""
    lines = [f"{'source':8}{'read':>8}{'kept':>8}{'dropped':>9}  kept as"]
    for source, count in counts.items():
        kept, dropped = sum(count.kept.values()), sum(count.dropped.values())
        parts = ", ".join(f"{split} {n}" for split, n in count.kept.items()) or "-"
        lines.append(f"{source:8}{count.read:8}{kept:8}{dropped:9}  {parts}")
        lines += [f"  dropped {n}: {reason}" for reason, n in sorted(count.dropped.items())]
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.gsm8k",
        description="Writes GSM8K as train.parquet, validation.parquet (carved out of train, never "
        "out of test) and test.parquet. The same input and options give the same bytes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    # argparse.SUPPRESS keeps "(default: None)" out of the help.
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write to")
    add(
        "--source",
        type=Path,
        default=argparse.SUPPRESS,
        help="a .jsonl or .parquet file with the fields question and answer (makes no test split), "
        "or a folder with one such file named like train and one named like test, gsm8k files "
        "first (default: the Hugging Face hub)",
    )
    add("--validation", type=int, default=373, metavar="N", help="problems carved out of train")
    add("--instruction", default=INSTRUCTION, metavar="TEXT", help="text put after the question")
    add("--seed", type=int, default=0, metavar="N", help="seed of the validation problems")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads, carves, writes and counts."""
    args = parse_args(argv)
    source = getattr(args, "source", None)
    train, test = read_source(source) if source else read_hub()
    rows, counts = prepare(
        train,
        test,
        validation=args.validation,
        instruction=args.instruction,
        seed=args.seed,
    )
    written = write_splits(args.out, rows)
    print(report(counts))
    if "test" not in rows:
        print(f"no test file in {source}: no test split is written")
    for path in written:
        print(f"wrote {path}")


def _distinct(records: Sequence[Record], counts: Counts, taken: dict[str, str]) -> list[Record]:
    seen = dict(taken)
    kept = []
    for record in records:
        holder = seen.get(_key(record))
        if holder is None:
            seen[_key(record)] = "this file"
            kept.append(record)
        else:
            counts.dropped[f"the same question is in {holder}"] += 1
    return kept


def _key(record: Record) -> str:
    return " ".join(record.fields["question"].split())


def _row(record: Record, split: str, instruction: str) -> Row:
    question = record.fields["question"]
    return make_row(
        data_source=DATA_SOURCE,
        question=question,
        answer=record.fields["answer"],
        ground_truth=final_answer(record.fields["answer"], record.where),
        split=split,
        index=record.index,
        prompt=f"{question} {instruction}".strip(),
    )


def _file_of(folder: Path, split: str) -> Path | None:
    named = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and split in path.name.lower()]
    # A folder may hold other data sets beside GSM8K.
    named = [path for path in named if "gsm8k" in path.name.lower()] or named
    if len(named) > 1:
        names = ", ".join(path.name for path in named)
        raise DataError(f"{folder} has more than one {split} file: {names}; keep one there")
    return named[0] if named else None


if __name__ == "__main__":
    run(main)
