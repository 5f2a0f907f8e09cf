"""Generated arithmetic stories, and the parquet files that verl reads."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import placing, writer
from data_prep.arithmetic import draw_problem, generate, to_rows
from data_prep.writer import DataError, make_row, read_split, write_splits
from tests.conftest import run_module

GAIN_WORDS = {"buys", "finds", "gets"}
LOSS_WORDS = {"gives", "loses", "sells", "uses"}


def totals(question: str) -> list[int]:
    """Works a story out by reading it: the amount at the start and after each deed."""
    start, *deeds, _ = re.findall(r"[^.?]+[.?]", question)
    amounts = [int(re.search(r"\d+", start)[0])]
    for deed in deeds:
        words = set(deed.strip(" .").split())
        assert len(words & (GAIN_WORDS | LOSS_WORDS)) == 1
        sign = 1 if words & GAIN_WORDS else -1
        amounts.append(amounts[-1] + sign * int(re.search(r"\d+", deed)[0]))
    return amounts


def test_reading_a_story_by_hand():
    story = "Ann has 7 apples. She buys 5 more. Then she gives away 3. How many apples does Ann have now?"
    assert totals(story) == [7, 12, 9]


@given(
    seed=st.integers(0, 10**6),
    steps=st.tuples(st.integers(1, 8), st.integers(0, 3)),
    max_number=st.integers(1, 99),
)
@settings(max_examples=60, deadline=None)
def test_solutions_work_the_stories_out(seed, steps, max_number):
    low, high = steps[0], sum(steps)
    problems = generate({"train": 12}, min_steps=low, max_steps=high, max_number=max_number, seed=seed)["train"]
    for problem in problems:
        amounts = totals(problem.question)
        assert low <= len(amounts) - 1 <= high
        assert min(amounts) >= 0
        assert max(map(int, re.findall(r"\d+", problem.question))) <= max_number
        *lines, last = problem.solution.split("\n")
        assert last == f"#### {amounts[-1]}" == f"#### {problem.answer}"
        for line, before, after in zip(lines, amounts, amounts[1:], strict=False):
            sign, number = ("+", after - before) if after > before else ("-", before - after)
            assert line == f"{before} {sign} {number} = {after}"
        assert len(lines) == len(amounts) - 1


def test_every_number_of_steps_is_drawn():
    problems = generate({"train": 300}, min_steps=2, max_steps=4)["train"]
    counts = [sum(p.solution.count("\n") == steps for p in problems) for steps in (2, 3, 4)]
    assert sum(counts) == 300
    assert min(counts) > 60  # a third each


def test_no_question_is_in_two_splits():
    splits = generate({"test": 100, "validation": 100, "train": 150}, max_number=1, max_steps=2)
    questions = [problem.question for problems in splits.values() for problem in problems]
    assert len(set(questions)) == len(questions) == 350


def test_a_split_does_not_depend_on_those_drawn_later():
    small = generate({"test": 50, "validation": 50, "train": 10})
    large = generate({"test": 50, "validation": 50, "train": 900})
    assert small["test"] == large["test"]
    assert small["validation"] == large["validation"]


def test_the_seed_makes_the_problems():
    assert generate({"train": 20}, seed=1) == generate({"train": 20}, seed=1)
    assert generate({"train": 20}, seed=1) != generate({"train": 20}, seed=2)


def test_asking_for_more_than_there_are():
    # One step with ones only: 8 people, 8 things, 3 gains and 4 losses.
    assert len(generate({"train": 440}, min_steps=1, max_steps=1, max_number=1)["train"]) == 440
    with pytest.raises(DataError, match=r"found only 448 .* not the 460 asked for"):
        generate({"test": 10, "train": 450}, min_steps=1, max_steps=1, max_number=1)


def test_nothing_left_leaves_only_gains():
    problems = [draw_problem(random.Random(seed), 3, 1) for seed in range(200)]
    assert any(0 in totals(problem.question)[:-1] for problem in problems)


def test_the_files_are_what_verl_reads(tmp_path):
    options = ["--train", 30, "--validation", 10, "--test", 10]
    done = run_module("data_prep.arithmetic", "--out", tmp_path / "a", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "30 problems" in done.stdout
    run_module("data_prep.arithmetic", "--out", tmp_path / "b", *options)
    for split, count in (("train", 30), ("validation", 10), ("test", 10)):
        first, second = (tmp_path / out / f"{split}.parquet" for out in "ab")
        assert first.read_bytes() == second.read_bytes()
        rows = read_split(tmp_path / "a", split)
        assert [row["extra_info"]["index"] for row in rows] == list(range(count))
        for row in rows:
            question = row["extra_info"]["question"]
            assert row["data_source"] == "spo/arithmetic"
            assert row["prompt"] == [{"role": "user", "content": question}]
            assert row["reward_model"]["style"] == "rule"
            assert int(row["reward_model"]["ground_truth"]) == totals(question)[-1]
            assert row["extra_info"]["split"] == split
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "train.parquet",
        "validation.parquet",
        "test.parquet",
        "manifest.json",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-steps", 5], "--min-steps <= --max-steps, not 5 and 4"),
        (["--min-steps", 0], "not 0 and 4"),
        (["--max-number", 0], "--max-number must be at least 1"),
        (["--test", 0], "--test must be at least 1"),
        (["--min-steps", 1, "--max-steps", 1, "--max-number", 1], "found only 448 distinct"),
    ],
)
def test_options_that_will_not_do(tmp_path, options, message):
    done = run_module("data_prep.arithmetic", "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def row(index: int = 0, split: str = "train", **fields: str):
    texts = {"question": "How many?", "answer": "#### 1", "ground_truth": "1"} | fields
    return make_row(data_source="x", split=split, index=index, **texts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "train split would be empty"),
        ([row(3), row(3)], "train row 3: this index occurs twice"),
        ([row(question=" ")], "train row 0: question is empty"),
        ([row(ground_truth="")], "train row 0: ground_truth is empty"),
        ([row(prompt="\n")], "train row 0: prompt is empty"),
        ([row(question="\ud800")], "train row 0: question holds half of a surrogate pair"),
        ([row(split="test")], "belongs to split 'test'"),
    ],
)
def test_a_bad_row_leaves_the_files_as_they_were(tmp_path, rows, message):
    write_splits(tmp_path, {"test": [row(split="test")], "train": [row()]})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=message):
        write_splits(tmp_path, {"test": [row(7, split="test")], "train": rows})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_error_while_writing_leaves_the_files_as_they_were(tmp_path, monkeypatch):
    write_splits(tmp_path, {"train": [row()]})
    before = (tmp_path / "train.parquet").read_bytes()

    def full_disk(path, data):
        path.write_bytes(data[:4])
        raise OSError("No space left on device")

    monkeypatch.setattr(placing, "_write", full_disk)
    with pytest.raises(DataError, match="cannot write to .*No space left on device"):
        write_splits(tmp_path, {"train": [row(1)]})
    with pytest.raises(DataError, match="No space left on device"):
        write_splits(tmp_path / "new" / "folder", {"train": [row(1)]})
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
    assert (tmp_path / "train.parquet").read_bytes() == before


def test_a_split_of_another_data_set_is_not_left_beside(tmp_path):
    write_splits(tmp_path, {"test": [row(split="test")]})
    with pytest.raises(DataError, match="test.parquet is left from another data set"):
        write_splits(tmp_path, {"train": [row()]})


def test_reading_what_is_not_there_or_not_ours(tmp_path):
    with pytest.raises(DataError, match="train.parquet does not exist"):
        read_split(tmp_path, "train")
    (tmp_path / "train.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="train.parquet is not a parquet file"):
        read_split(tmp_path, "train")
    table = writer.pa.table({"question": ["How many?"]})
    writer.pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(DataError, match="test.parquet has other columns"):
        read_split(tmp_path, "test")


def test_rows_keep_the_worked_solution():
    problem = generate({"train": 1})["train"][0]
    made = to_rows("train", [problem])[0]
    assert made["extra_info"]["answer"] == problem.solution
    assert made["reward_model"]["ground_truth"] == str(problem.answer)
