"""MATH and MATH500 preparation, on small files made here and, where they are at hand, on the real data."""

import json
import re
from pathlib import Path

import pytest

from data_prep import math, math500
from data_prep.writer import read_split
from tests.preparing import (
    REAL_DATA,
    assert_refused,
    files,
    needs_real_data,
    questions,
    run_here,
    stub_hub,
    write_lines,
)

SUBJECTS = ("Algebra", "Geometry", "Counting & Probability")


def problem(n: int, part: str = "train", **fields) -> dict:
    row = {
        "problem": f"What is ${n}+{n}$?",
        "level": f"Level {n % 5 + 1}",
        "type": SUBJECTS[n % 3],
        "solution": f"Twice {n} is $\\boxed{{{2 * n}}}$.",
        "unique_id": f"{part}/algebra/{n}.json",
    }
    return {name: value for name, value in (row | fields).items() if value is not None}


TRAIN = [problem(n) for n in range(20)]
TEST = [problem(n, "test") for n in range(20, 30)]
MATH500 = [
    {"subject": row.pop("type"), **row, "level": int(row.pop("level")[-1]), "answer": str(2 * n)}
    for n in range(20, 24)
    for row in [problem(n, "test")]
]


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    write_lines(folder / "math_train.jsonl", TRAIN)
    write_lines(folder / "math_test.jsonl", TEST)
    write_lines(folder / "math500.jsonl", MATH500)
    write_lines(folder / "gsm8k_train.jsonl", [{"question": "?", "answer": "#### 1"}])
    return folder


def prepare(source: Path, out: Path, *options: object):
    return run_here(math, "--source", source, "--out", out, "--validation", 4, *options)


def test_a_row_in_full(source, tmp_path):
    done = prepare(source, tmp_path / "out", "--split", "7.5k")
    assert done.returncode == 0, done.stderr
    assert read_split(tmp_path / "out", "test")[3] == {
        "data_source": "DigitalLearningGmbH/MATH-lighteval",
        "prompt": [
            {
                "role": "user",
                "content": "What is $23+23$? Let's think step by step and put the final answer within \\boxed{}.",
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "46"},
        "extra_info": {
            "split": "test",
            "index": 3,
            "question": "What is $23+23$?",
            "answer": "Twice 23 is $\\boxed{46}$.",
            "id": "test/algebra/23.json",
            "subject": "Counting & Probability",
            "level": "4",
        },
    }


def test_the_original_split(source, tmp_path):
    done = prepare(source, tmp_path / "out", "--split", "7.5k")
    assert re.search(r"^train +20 +20 +20 +0  train 16, validation 4$", done.stdout, re.M)
    assert re.search(r"^test +10 +10 +10 +0  test 10$", done.stdout, re.M)
    assert questions(tmp_path / "out", "test") == [row["problem"] for row in TEST]


def test_12k_holds_math500_out(source, tmp_path):
    out = tmp_path / "out"
    done = prepare(source, out, "--split", "12k")
    assert "30 problems without the 4 of MATH500\n" in done.stdout
    assert re.search(r"^train +26 +26 +26 +0  train 22, validation 4$", done.stdout, re.M)
    assert questions(out, "test") == [row["problem"] for row in MATH500]
    trained = questions(out, "train") + questions(out, "validation")
    assert sorted(trained) == sorted(row["problem"] for row in TRAIN + TEST[4:])


def test_the_test_split_of_12k_goes_by_the_name_of_math500(source, tmp_path):
    prepare(source, tmp_path / "out", "--split", "12k")
    names = {split: {row["data_source"] for row in read_split(tmp_path / "out", split)} for split in ("train", "test")}
    assert names == {"train": {"DigitalLearningGmbH/MATH-lighteval"}, "test": {"HuggingFaceH4/MATH-500"}}


def test_validation_is_never_carved_out_of_test(source, tmp_path):
    for seed in range(10):
        prepare(source, tmp_path / "out", "--split", "7.5k", "--seed", seed)
        assert set(questions(tmp_path / "out", "validation")) <= {row["problem"] for row in TRAIN}
        assert len(questions(tmp_path / "out", "test")) == len(TEST)


def test_12k_knows_problems_without_ids_by_their_text(source, tmp_path):
    for name, rows in (("math_train", TRAIN), ("math_test", TEST)):
        write_lines(source / f"{name}.jsonl", [row | {"unique_id": None} for row in rows])
    done = prepare(source, tmp_path / "out", "--split", "12k")
    assert re.search(r"^train +26 +26 +26 +0 ", done.stdout, re.M), done.stderr


def test_12k_needs_all_of_math(source, tmp_path):
    (source / "math_test.jsonl").unlink()
    done = prepare(source, tmp_path / "out", "--split", "12k")
    assert_refused(done, "4 of the 4 MATH500 problems are not in --source", tmp_path / "out")


def test_12k_needs_math500(source, tmp_path):
    (source / "math500.jsonl").unlink()
    done = prepare(source, tmp_path / "out", "--split", "12k")
    assert_refused(done, "name one with --math500", tmp_path / "out")
    done = prepare(source, tmp_path / "out", "--split", "12k", "--math500", tmp_path / "none.jsonl")
    assert_refused(done, "none.jsonl does not exist or is not a file; check --math500", tmp_path / "out")


def test_what_is_dropped_is_named(source, tmp_path):
    spaced = {"problem": "What is $20 + 20$?", "solution": "\\boxed{40}", "unique_id": "train/algebra/98.json"}
    again = {"problem": "What is\n$3+3$?", "solution": "\\boxed{6}", "unique_id": "train/algebra/99.json"}
    empty = problem(0, solution="None: \\boxed{ }", answer="", problem="Which?", unique_id="train/algebra/97.json")
    write_lines(source / "math_train.jsonl", [*TRAIN, spaced, again, empty])
    done = prepare(source, tmp_path / "out", "--split", "7.5k")
    assert re.search(r"^train +23 +22 +20 +3  train 16, validation 4$", done.stdout, re.M)
    for reason, name in (
        ("the same question is in test", 98),
        ("the same question is in this file", 99),
        ("the last box of the solution is empty", 97),
    ):
        assert f"  dropped 1: {reason}\n    train/algebra/{name}.json\n" in done.stdout
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert sorted(drop["ids"][0] for drop in counts["train"]["dropped"]) == [
        f"train/algebra/{n}.json" for n in (97, 98, 99)
    ]
    assert "questions in common: train/validation 0, train/test 0, validation/test 0\n" in done.stdout


def test_train_problems_of_math500_are_dropped(source, tmp_path):
    write_lines(tmp_path / "held.jsonl", [MATH500[0] | {"problem": "What is $5+5$?"}])
    done = prepare(source, tmp_path / "out", "--split", "7.5k", "--math500", tmp_path / "held.jsonl")
    assert "  dropped 1: the same question is in MATH500\n    train/algebra/5.json\n" in done.stdout


def test_filters(source, tmp_path):
    out = tmp_path / "out"
    options = ["--split", "7.5k", "--subjects", "counting & probability,Algebra", "--levels", "1, Level 2,3"]
    done = prepare(source, out, *options, "--validation", 1)
    assert done.returncode == 0, done.stderr
    kept = [n for n in range(20) if n % 3 != 1 and n % 5 <= 2]
    rows = read_split(out, "train") + read_split(out, "validation")
    assert sorted(row["extra_info"]["index"] for row in rows) == kept
    assert {row["extra_info"]["level"] for row in rows} == {"1", "2", "3"}
    others = sum(n % 3 == 1 for n in range(20))
    assert f"  dropped {others}: not of the subjects counting_and_probability, algebra\n" in done.stdout
    assert f"  dropped {20 - others - len(kept)}: not of the levels 1, 2, 3\n" in done.stdout


def test_a_test_problem_of_another_subject_is_dropped_from_train_all_the_same(source, tmp_path):
    twin = problem(20, "train", type="Algebra", unique_id="train/algebra/77.json")  # Counting & Probability in test
    write_lines(source / "math_train.jsonl", [*TRAIN, twin])
    done = prepare(source, tmp_path / "out", "--split", "7.5k", "--subjects", "algebra", "--validation", 1)
    assert "the same question is in test\n    train/algebra/77.json\n" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--subjects", "algebra,topology"], "unknown name 'topology'"),
        (["--levels", "6"], "unknown name '6'"),
        (["--validation", 40], "--validation 40 must be at least 1 and leave some of the 20 train problems"),
        (["--levels", "5", "--subjects", "geometry", "--validation", 1], "the test split would be empty; loosen"),
    ],
)
def test_options_that_will_not_do(source, tmp_path, options, message):
    done = prepare(source, tmp_path / "out", "--split", "7.5k", *options)
    assert_refused(done, message, tmp_path / "out")


def test_a_filter_needs_the_field(source, tmp_path):
    write_lines(source / "math_train.jsonl", [*TRAIN, problem(31, level=None)])
    done = prepare(source, tmp_path / "out", "--split", "7.5k", "--levels", "1")
    assert_refused(done, "train/algebra/31.json: no field 'level'", tmp_path / "out")


def test_a_stated_answer_is_checked(source, tmp_path):
    write_lines(source / "math_train.jsonl", [*TRAIN, problem(31, answer="63")])
    done = prepare(source, tmp_path / "out", "--split", "7.5k")
    message = "math_train.jsonl, line 21: field 'answer' says '63', the last box of 'solution' '62'"
    assert_refused(done, message, tmp_path / "out")


def test_a_folder_of_json_files(tmp_path):
    """Laid out as Hendrycks published it; the id comes from the path."""
    for part, rows in (("train", TRAIN), ("test", TEST)):
        for n, row in enumerate(rows):
            path = tmp_path / "MATH" / part / "algebra" / f"{n + 1}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({name: value for name, value in row.items() if name != "unique_id"}))
    done = prepare(tmp_path / "MATH", tmp_path / "out", "--split", "7.5k")
    assert done.returncode == 0, done.stderr
    rows = read_split(tmp_path / "out", "test")
    assert [row["extra_info"]["id"] for row in rows] == [f"test/algebra/{n}.json" for n in range(1, 11)]
    sources = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    assert [(source["name"], source["files"]) for source in sources] == [("train", 20), ("test", 10)]


def test_the_hub(monkeypatch, tmp_path):
    sets = {
        ("DigitalLearningGmbH/MATH-lighteval",): {
            part: [{name: value for name, value in row.items() if name != "unique_id"} for row in rows]
            for part, rows in (("train", TRAIN), ("test", TEST))
        },
        ("HuggingFaceH4/MATH-500",): {"test": MATH500},
    }
    stub_hub(monkeypatch, sets)
    done = run_here(math, "--out", tmp_path / "12k", "--validation", 4)
    assert re.search(r"^train +26 +26 +26 +0  train 22, validation 4$", done.stdout, re.M), done.stderr
    done = run_here(math500, "--out", tmp_path / "500")
    assert questions(tmp_path / "500", "test") == [row["problem"] for row in MATH500], done.stderr


def test_math500_is_a_test_split_alone(source, tmp_path):
    out = tmp_path / "out"
    done = run_here(math500, "--source", source, "--out", out)
    assert done.returncode == 0, done.stderr
    assert set(files(out)) == {"test.parquet", "manifest.json"}
    assert "MATH500 has 500 problems, this source 4\n" in done.stdout
    row = read_split(out, "test")[0]
    assert (row["data_source"], row["extra_info"]["level"]) == ("HuggingFaceH4/MATH-500", "1")


def test_another_test_file_is_not_taken_for_math500(source, tmp_path):
    (source / "math500.jsonl").unlink()
    done = run_here(math500, "--source", source, "--out", tmp_path / "out")
    assert_refused(done, f"{source} has no math500 file", tmp_path / "out")
    write_lines(tmp_path / "alone" / "test.jsonl", [problem(n) for n in range(501)])
    done = run_here(math500, "--source", tmp_path / "alone", "--out", tmp_path / "out")
    assert_refused(done, "MATH500 has 500 problems, this source 501: it is another data set", tmp_path / "out")


def test_math500_is_compared_with_what_is_trained_on(source, tmp_path):
    prepare(source, tmp_path / "clean", "--split", "12k")
    write_lines(source / "math_test.jsonl", [problem(n, "test") for n in range(40, 50)])
    write_lines(source / "math_train.jsonl", [*TRAIN, problem(21)])
    prepare(source, tmp_path / "leaky", "--split", "7.5k", "--validation", 1)
    options = ["--against", tmp_path / "clean", "--against", tmp_path / "leaky"]
    done = run_here(math500, "--source", source, "--out", tmp_path / "out", *options)
    assert "clean:train/test 0, clean:validation/test 0, " in done.stdout
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["overlaps"]
    assert counts["leaky:train/test"] + counts["leaky:validation/test"] == 1


@needs_real_data
@pytest.mark.parametrize(
    ("split", "read", "usable", "kept", "validation", "test"),
    [("7.5k", 7500, 7498, 7494, 500, 5000), ("12k", 12000, 11998, 11994, 500, 500)],
)
def test_the_real_data(tmp_path, split, read, usable, kept, validation, test):
    done = run_here(math, "--source", REAL_DATA, "--out", tmp_path / "a", "--split", split)
    assert done.returncode == 0, done.stderr
    line = f"train +{read} +{usable} +{kept} +{read - kept}  train {kept - validation}, validation {validation}"
    assert re.search(f"^{line}$", done.stdout, re.M)
    assert re.search(f"^test +{test} +{test} +{test} +0  test {test}$", done.stdout, re.M)
    two = "    train/number_theory/7115.json, train/number_theory/7117.json\n"
    assert f"  dropped 2: the last box of the solution is empty\n{two}" in done.stdout
    assert "questions in common: train/validation 0, train/test 0, validation/test 0\n" in done.stdout
    assert len({row["extra_info"]["index"] for row in read_split(tmp_path / "a", "train")}) == kept - validation
    run_here(math, "--source", REAL_DATA, "--out", tmp_path / "b", "--split", split)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@needs_real_data
def test_the_real_math500(tmp_path):
    for split in ("7.5k", "12k"):
        options = ["--split", split, "--math500", REAL_DATA / "math500.jsonl"]
        run_here(math, "--source", REAL_DATA, "--out", tmp_path / split, *options)
    options = ["--against", tmp_path / "7.5k", "--against", tmp_path / "12k"]
    done = run_here(math500, "--source", REAL_DATA, "--out", tmp_path / "out", *options)
    assert re.search("^test +500 +500 +500 +0  test 500$", done.stdout, re.M), done.stderr
    overlaps = json.loads((tmp_path / "out" / "manifest.json").read_text())["overlaps"]
    assert len(overlaps) == 4
    assert set(overlaps.values()) == {0}
