r"""Seconds that grading takes: 10,000 responses to GSM8K, and 5,000 to MATH against math-verify alone.

    python -m benchmarks.grading --source gsm8k_test.jsonl math_test.jsonl    (make bench-grading SOURCES="...")

Responses are made of the right answers: a third right, a third with the answer of another question, a third
with a digit changed, each after some sentences. Ours is `grade` for GSM8K and, for MATH, `grade_many`: rules here,
algebra in two grader processes. The other side is math-verify called directly in this process, `verify(parse(gold),
parse(response))` with its own time limits, on the same MATH responses; it is neither confined nor parallel, and it
has other rules, so the two disagree on some. The last line is `ratio: N.NN`, our responses a second over its,
larger is better.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.errors import DataError, run
from data_prep.sources import Field, read_records

Pair = tuple[str, str]

THOUGHTS = "First we count what is there, then we multiply: $3 \\cdot 4 = 12$.\nSo we look at the rest. " * 5
FIELDS = (Field("problem", aliases=("question",)), Field("answer", optional=True))


def read_golds(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Reads right answers: those of GSM8K stand after `####`, all others are MATH's.

    Raises:
        DataError: a file cannot be read, or there is no answer of the one or the other.
    """
    gsm8k: list[str] = []
    math: list[str] = []
    for path in paths:
        for record in read_records(path, FIELDS).records:
            answer = record.fields.get("answer")  # two rows of MATH have none
            if answer and "####" in answer:
                gsm8k.append(answer.rpartition("####")[2].strip())
            elif answer:
                math.append(answer)
    for name, golds in (("GSM8K", gsm8k), ("MATH", math)):
        if len(golds) < 2:
            raise DataError(f"--source: no answers of {name}; name a file of GSM8K and one of MATH")
    return gsm8k, math


def responses(golds: Sequence[str], count: int, mark: str) -> list[Pair]:
    """Makes responses, each with the right answer; `mark` has a `%s` for what is answered."""
    made = []
    for number in range(count):
        gold, other = golds[number % len(golds)], golds[(number + 1) % len(golds)]
        changed = re.sub("[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), gold, count=1)
        made.append((THOUGHTS + mark % (gold, other, changed)[number % 3], gold))
    return made


def timed(name: str, pairs: Sequence[Pair], grade: Callable[[Sequence[Pair]], list[bool]]) -> tuple[float, list[bool]]:
    """Grades and prints how long it took."""
    started = time.perf_counter()
    found = grade(pairs)
    seconds = time.perf_counter() - started
    rate = len(pairs) / seconds
    print(f"{name:24} {len(pairs):7,} responses in {seconds:7.1f} s  {rate:10,.0f} a second  {sum(found):6,} correct")
    return seconds, found


def _math_verify(pairs: Sequence[Pair]) -> list[bool]:
    from math_verify import parse, verify

    return [bool(verify(parse(rf"$\boxed{{{gold}}}$"), parse(response))) for response, gold in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--source", type=Path, nargs="+", required=True, help="files of GSM8K and of MATH (jsonl or parquet)"
    )
    parser.add_argument("--gsm8k", type=int, default=10_000, help="responses to GSM8K (default: %(default)s)")
    parser.add_argument("--math", type=int, default=5_000, help="responses to MATH (default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.gsm8k, arguments.math) < 1:
        raise DataError("--gsm8k and --math must be at least 1")
    gsm8k_golds, math_golds = read_golds(arguments.source)

    from recipe.spo.rewards import gsm8k, math

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    gsm8k_pairs = responses(gsm8k_golds, arguments.gsm8k, "\n#### %s")
    timed("GSM8K, ours", gsm8k_pairs, lambda pairs: [gsm8k.grade(*pair).score > 0 for pair in pairs])
    pairs = responses(math_golds, arguments.math, r"The answer is $\boxed{%s}$.")
    warm = [(r"\boxed{x+1}", "1+x")] * 2  # processes start, grammars are read
    math.grade_many(warm)
    _math_verify(warm)
    ours, said = timed("MATH, ours", pairs, lambda pairs: [verdict.score > 0 for verdict in math.grade_many(pairs)])
    theirs, theirs_said = timed("MATH, math-verify alone", pairs, _math_verify)
    print(f"the two differ on {sum(a != b for a, b in zip(said, theirs_said, strict=True)):,} of {len(pairs):,}")
    print(f"ratio: {theirs / ours:.2f}")


if __name__ == "__main__":
    run(main)
