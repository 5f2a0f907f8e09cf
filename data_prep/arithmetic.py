"""Generated arithmetic stories in GSM8K's answer format: a task a tiny model can learn on a CPU.

    Ann has 7 apples. She buys 5 more. Then she gives away 3. How many apples does Ann have now?

    7 + 5 = 12
    12 - 3 = 9
    #### 9

The vocabulary is about 45 words and the ten digits, no amount ever falls below zero, and no
question occurs twice, within a split or across splits.
"""

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import DataError, run
from data_prep.manifest import manifest
from data_prep.names import ARITHMETIC
from data_prep.writer import Row, make_row, write_splits

PEOPLE = {
    "Ann": "she",
    "Ben": "he",
    "Cara": "she",
    "Dan": "he",
    "Eva": "she",
    "Finn": "he",
    "Gina": "she",
    "Hugo": "he",
}
THINGS = ("apples", "books", "cards", "coins", "marbles", "pens", "shells", "stamps")
GAINS = ("buys {n} more", "finds {n} more", "gets {n} more")
LOSSES = ("gives away {n}", "loses {n}", "sells {n}", "uses {n}")

# With this many draws in a row that only repeat old questions, hardly any new one is left.
MAX_REPEATS_IN_A_ROW = 2000


@dataclass(frozen=True)
class Problem:
    """A question, its worked solution ending in `#### N`, and N."""

    question: str
    solution: str
    answer: int


def generate(
    counts: Mapping[str, int],
    *,
    min_steps: int = 2,
    max_steps: int = 4,
    max_number: int = 20,
    seed: int = 0,
) -> dict[str, list[Problem]]:
    """Draws distinct problems for each split.

    The splits are drawn one after the other in the order of `counts`, so a split does not depend on
    the sizes of those named after it.

    Args:
        counts: Number of problems by name of the split.
        min_steps: Least number of additions and subtractions in a problem.
        max_steps: Most of them; the number of steps is uniform between the two.
        max_number: Greatest number named in a question; running totals may exceed it.
        seed: Seed of the draw.

    Returns:
        The problems by split; no question occurs twice anywhere.

    Raises:
        DataError: An option is out of range, or there are not that many distinct problems.
    """
    if not 1 <= min_steps <= max_steps:
        raise DataError(f"need 1 <= --min-steps <= --max-steps, not {min_steps} and {max_steps}; change one")
    if max_number < 1:
        raise DataError(f"--max-number must be at least 1, not {max_number}")
    for split, count in counts.items():
        if count < 1:
            raise DataError(f"--{split} must be at least 1, not {count}")
    rng = random.Random(seed)
    seen: set[str] = set()
    drawn: dict[str, list[Problem]] = {split: [] for split in counts}
    for split, count in counts.items():
        repeats = 0
        while len(drawn[split]) < count:
            problem = draw_problem(rng, rng.randint(min_steps, max_steps), max_number)
            if problem.question not in seen:
                seen.add(problem.question)
                drawn[split].append(problem)
                repeats = 0
                continue
            repeats += 1
            if repeats == MAX_REPEATS_IN_A_ROW:
                raise DataError(
                    f"found only {len(seen)} distinct problems with these settings, not the "
                    f"{sum(counts.values())} asked for; ask for fewer, or raise --max-number or "
                    "--max-steps"
                )
    return drawn


def draw_problem(rng: random.Random, steps: int, max_number: int) -> Problem:
    """Draws one problem with the given number of steps."""
    person, pronoun = rng.choice(list(PEOPLE.items()))
    thing = rng.choice(THINGS)
    total = rng.randint(1, max_number)
    sentences = [f"{person} has {total} {thing}."]
    lines = []
    for step in range(steps):
        gain = total == 0 or rng.random() < 0.5
        number = rng.randint(1, max_number if gain else min(total, max_number))
        deed = rng.choice(GAINS if gain else LOSSES).format(n=number)
        last = steps > 1 and step == steps - 1
        sentences.append(f"Then {pronoun} {deed}." if last else f"{pronoun.capitalize()} {deed}.")
        after = total + number if gain else total - number
        lines.append(f"{total} {'+' if gain else '-'} {number} = {after}")
        total = after
    sentences.append(f"How many {thing} does {person} have now?")
    return Problem(" ".join(sentences), "\n".join([*lines, f"#### {total}"]), total)


def to_rows(split: str, problems: list[Problem]) -> list[Row]:
    """Puts the problems of a split into verl's schema."""
    return [
        make_row(
            data_source=ARITHMETIC,
            question=problem.question,
            answer=problem.solution,
            ground_truth=str(problem.answer),
            split=split,
            index=index,
        )
        for index, problem in enumerate(problems)
    ]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.arithmetic",
        description="Writes generated arithmetic stories in GSM8K's answer format as "
        "train.parquet, validation.parquet and test.parquet. The same options give the same bytes; "
        "more training problems leave the other two splits as they are.",
        epilog="A harder variant: --min-steps 6 --max-steps 8",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    # A default of argparse.SUPPRESS keeps "(default: None)" out of the help of a required option.
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write to")
    add("--train", type=int, default=8000, metavar="N", help="training problems")
    add("--validation", type=int, default=256, metavar="N", help="validation problems")
    add("--test", type=int, default=256, metavar="N", help="test problems")
    add("--min-steps", type=int, default=2, metavar="N", help="least steps in a problem")
    add("--max-steps", type=int, default=4, metavar="N", help="most steps in a problem")
    add("--max-number", type=int, default=20, metavar="N", help="greatest number in a question")
    add("--seed", type=int, default=0, metavar="N", help="seed of the draw")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Generates, writes and counts."""
    args = parse_args(argv)
    problems = generate(
        {"test": args.test, "validation": args.validation, "train": args.train},
        min_steps=args.min_steps,
        max_steps=args.max_steps,
        max_number=args.max_number,
        seed=args.seed,
    )
    order = ("train", "validation", "test")
    rows = {split: to_rows(split, problems[split]) for split in order}
    write_splits(args.out, rows, manifest(ARITHMETIC, args=args))
    for split in order:
        print(f"{args.out / split}.parquet: {len(rows[split])} problems")


if __name__ == "__main__":
    run(main)
