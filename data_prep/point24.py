"""The 24 game: make 24 of four numbers with + - * / and parentheses. All puzzles that can be solved, generated."""

import argparse
import json
import random
from collections.abc import Sequence

from data_prep.errors import DataError, run
from data_prep.names import POINT24
from data_prep.options import make_parser
from data_prep.preparing import Preparation
from data_prep.problems import Counts, Problem
from data_prep.puzzles import puzzles
from data_prep.templates import R1, Wording

# The authors' system text, to the letter; it knows no other target than 24.
R1_SYSTEM = (
    "You are an intelligent system that calculates 24 point games, put your final calculation expression into "
    "\\boxed{}, for example \\boxed{1 * 2 * 3 * 4}."
)


def wording(target: int) -> Wording:
    """Gives the instructions for a target."""
    return Wording(
        chat=f"Use each of these four numbers exactly once, with + - * / and parentheses, to make {target}, and put "
        "the expression into \\boxed{}.",
        r1=R1_SYSTEM,
        r1_is_system=True,
        question_needs_chat=True,
    )


def generate(max_number: int, target: int) -> list[Problem]:
    """Makes all puzzles that can be solved.

    Raises:
        DataError: An option is out of range.
    """
    if not 1 <= max_number <= 50:
        raise DataError(f"--max-number must be from 1 to 50, not {max_number}")
    if target < 1:
        raise DataError(f"--target must be at least 1, not {target}")
    return [
        Problem(
            question=str(list(numbers)),
            answer=f"\\boxed{{{expression}}}",
            truth=json.dumps({"numbers": numbers, "target": target}, separators=(",", ":")),
            index=index,
            name=str(list(numbers)),
        )
        for index, (numbers, expression) in enumerate(puzzles(max_number, target))
    ]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(
        "point24",
        "Generates all puzzles of four numbers that can be solved, and parts them, shuffled, into train.parquet, "
        "validation.parquet and test.parquet. More training puzzles leave the other two splits as they are.",
        wording(24),
        source=None,
    )
    add = parser.add_argument
    add(
        "--train",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="training puzzles (default: all that the other two leave)",
    )
    add("--validation", type=int, default=100, metavar="N", help="validation puzzles")
    add("--test", type=int, default=100, metavar="N", help="test puzzles")
    add("--max-number", type=int, default=13, metavar="N", help="greatest of the four numbers")
    add("--target", type=int, default=24, metavar="N", help="value to make")
    add("--seed", type=int, default=0, metavar="N", help="seed of the shuffle")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Generates, shuffles, parts, writes and counts."""
    args = parse_args(argv)
    if args.template == R1 and args.target != 24:
        raise DataError(f"--template r1 tells the policy to make 24, not {args.target}; choose another --template")
    preparation = Preparation(args, POINT24, wording(args.target))
    problems = generate(args.max_number, args.target)
    counts = preparation.counts["all"] = Counts(read=len(problems))
    random.Random(args.seed).shuffle(problems)
    problems = preparation.within_limit("all", problems)
    train = preparation.option("train")
    asked = {"test": args.test, "validation": args.validation}
    asked["train"] = len(problems) - sum(asked.values()) if train is None else train
    for split, size in asked.items():
        if size < 1 and (split != "train" or train is not None):
            raise DataError(f"--{split} must be at least 1, not {size}")
    if asked["train"] < 1 or sum(asked.values()) > len(problems):
        raise DataError(
            f"only {len(problems)} puzzles make {args.target}, too few for --test {args.test} --validation "
            f"{args.validation} and {max(1, asked['train'])} to train on; ask for fewer or raise --max-number"
        )
    splits, start = {}, 0
    for split, size in asked.items():
        splits[split] = sorted(problems[start : start + size], key=lambda problem: problem.index)
        start += size
    for problem in problems[start:]:
        counts.drop("not asked for", problem.name)
    order = ("train", "validation", "test")
    counts.kept = {split: len(splits[split]) for split in order}
    preparation.write({split: splits[split] for split in order})


if __name__ == "__main__":
    run(main)
