"""The 24 game: which puzzles can be solved, and how they are parted."""

import ast
import json
import operator
import re
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import pytest

from data_prep import point24
from data_prep.puzzles import puzzles, solve
from data_prep.writer import read_split
from tests.preparing import assert_refused, files, run_here

OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(expression: str) -> Fraction:
    def work(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        return OPERATIONS[type(node.op)](work(node.left), work(node.right))

    return work(ast.parse(expression, mode="eval").body)


def brute_force(numbers, target: int) -> bool:
    """Tries every order, all operations, and all five ways to put parentheses around four numbers."""

    def apply(op, x, y):
        return None if x is None or y is None or (op is operator.truediv and y == 0) else op(x, y)

    for a, b, c, d in set(permutations(map(Fraction, numbers))):
        for f, g, h in product(OPERATIONS.values(), repeat=3):
            shapes = (
                apply(h, apply(g, apply(f, a, b), c), d),
                apply(h, apply(f, a, apply(g, b, c)), d),
                apply(g, apply(f, a, b), apply(h, c, d)),
                apply(f, a, apply(h, apply(g, b, c), d)),
                apply(f, a, apply(g, b, apply(h, c, d))),
            )
            if target in shapes:
                return True
    return False


@pytest.mark.parametrize("target", [24, 7])
def test_against_brute_force(target):
    found = {numbers for numbers, _ in puzzles(4, target)}
    everything = list(combinations_with_replacement(range(1, 5), 4))
    assert found == {numbers for numbers in everything if brute_force(numbers, target)}
    assert 0 < len(found) < len(everything)


def test_every_solution_works_out():
    made = list(puzzles(13, 24))
    assert len(made) == 1362  # the known number for four cards of 1 to 13
    for numbers, expression in made:
        assert value(expression) == 24
        assert sorted(map(int, re.findall(r"\d+", expression))) == list(numbers)


def test_fractions_are_exact():
    assert value(solve((3, 3, 8, 8), 24)) == 24  # 8 / (3 - 8 / 3), the only way
    assert value(solve((5, 5, 5, 1), 24)) == 24  # 5 * (5 - 1 / 5)
    assert solve((1, 1, 1, 1), 24) is None


def test_no_puzzle_is_in_two_splits(tmp_path):
    done = run_here(point24, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert re.search("^all +1362 +1362 +1362 +0  train 1162, validation 100, test 100$", done.stdout, re.M)
    assert "questions in common: train/validation 0, train/test 0, validation/test 0\n" in done.stdout
    seen = [
        row["extra_info"]["question"] for s in ("train", "validation", "test") for row in read_split(tmp_path / "a", s)
    ]
    assert len(set(seen)) == len(seen) == 1362
    run_here(point24, "--out", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    run_here(point24, "--out", tmp_path / "c", "--seed", 1)
    assert files(tmp_path / "a")["test.parquet"] != files(tmp_path / "c")["test.parquet"]


def test_fewer_training_puzzles_leave_the_other_splits(tmp_path):
    run_here(point24, "--out", tmp_path / "a")
    done = run_here(point24, "--out", tmp_path / "b", "--train", 50)
    assert "dropped 1112: not asked for\n" in done.stdout
    for split in ("validation", "test"):
        assert read_split(tmp_path / "a", split) == read_split(tmp_path / "b", split)
    assert len(read_split(tmp_path / "b", "train")) == 50


def test_a_row(tmp_path):
    run_here(point24, "--out", tmp_path, "--max-number", 6, "--validation", 10, "--test", 10)
    row = read_split(tmp_path, "test")[0]
    numbers = json.loads(row["extra_info"]["question"])
    assert row["data_source"] == "spo/point24"
    assert (
        row["reward_model"]["ground_truth"] == f'{{"numbers":{json.dumps(numbers, separators=(",", ":"))},"target":24}}'
    )
    assert row["prompt"][0]["content"] == (
        f"{numbers} Use each of these four numbers exactly once, with + - * / and parentheses, to make 24, and put the "
        "expression into \\boxed{}."
    )
    assert max(numbers) <= 6


def test_another_target(tmp_path):
    done = run_here(point24, "--out", tmp_path, "--target", 30, "--train", 9)
    assert done.returncode == 0, done.stderr
    row = read_split(tmp_path, "train")[0]
    assert json.loads(row["reward_model"]["ground_truth"])["target"] == 30
    assert "to make 30," in row["prompt"][0]["content"]
    assert value(row["extra_info"]["answer"].removeprefix("\\boxed{").removesuffix("}")) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-number", 0], "--max-number must be from 1 to 50, not 0"),
        (["--target", 0], "--target must be at least 1, not 0"),
        (["--test", 0], "--test must be at least 1, not 0"),
        (["--train", 0], "--train must be at least 1, not 0"),
        (["--train", 1163], "only 1362 puzzles make 24, too few for --test 100 --validation 100 and 1163 to train on"),
        (["--max-number", 3], "puzzles make 24, too few"),
        (["--target", 30, "--template", "r1"], "--template r1 tells the policy to make 24, not 30"),
    ],
)
def test_options_that_will_not_do(tmp_path, options, message):
    assert_refused(run_here(point24, "--out", tmp_path / "out", *options), message, tmp_path / "out")
