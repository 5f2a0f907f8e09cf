"""GSM8K preparation, on small files made here and, where it is at hand, on the real data."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import gsm8k
from data_prep.hub import read_hub
from data_prep.sources import Record
from data_prep.templates import HASHES
from data_prep.writer import DataError, read_split
from recipe.spo.rewards.score import compute_score
from tests.preparing import REAL_DATA, Done, assert_refused, needs_real_data, questions, run_here, stub_hub, write_lines

PROBLEMS = [
    {"question": f"What is {n} and {n}?", "answer": f"It is {n}+{n}=<<{n}+{n}={2 * n}>>\n#### {2 * n}"}
    for n in range(20)
]


def prepare(source: Path, out: Path, *options: object) -> Done:
    return run_here(gsm8k, "--source", source, "--out", out, *options)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a train and a test file in two formats."""
    source = tmp_path / "source"
    source.mkdir()
    write_lines(source / "train.jsonl", PROBLEMS[:15])
    pq.write_table(pa.Table.from_pylist(PROBLEMS[15:]), source / "test-00000-of-00001.parquet")
    return source


def test_a_folder_makes_three_splits(folder, tmp_path):
    done = prepare(folder, tmp_path / "out", "--validation", 4)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train +15 +15 +15 +0  train 11, validation 4$", done.stdout, re.M)
    assert re.search(r"^test +5 +5 +5 +0  test 5$", done.stdout, re.M)
    train, validation = questions(tmp_path / "out", "train"), questions(tmp_path / "out", "validation")
    assert (len(train), len(validation)) == (11, 4)
    assert sorted(train + validation) == sorted(p["question"] for p in PROBLEMS[:15])
    assert questions(tmp_path / "out", "test") == [p["question"] for p in PROBLEMS[15:]]


def test_a_row_in_full(folder, tmp_path):
    prepare(folder, tmp_path / "out", "--validation", 4)
    assert read_split(tmp_path / "out", "test")[2] == {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "What is 17 and 17? " + HASHES.chat}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "34"},
        "extra_info": {
            "split": "test",
            "index": 2,
            "question": "What is 17 and 17?",
            "answer": "It is 17+17=<<17+17=34>>\n#### 34",
            "id": None,
            "subject": None,
            "level": None,
        },
    }


def test_the_index_is_the_row_in_the_source(folder, tmp_path):
    prepare(folder, tmp_path / "out", "--validation", 4)
    for split in ("train", "validation"):
        for row in read_split(tmp_path / "out", split):
            assert row["extra_info"]["question"] == PROBLEMS[row["extra_info"]["index"]]["question"]


def test_one_file_makes_no_test_split(folder, tmp_path):
    done = prepare(folder / "train.jsonl", tmp_path / "out", "--validation", 4)
    assert done.returncode == 0, done.stderr
    assert "no test split is written" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "train.parquet",
        "validation.parquet",
        "manifest.json",
    }


def test_the_same_options_give_the_same_bytes(folder, tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(folder, tmp_path / out, "--validation", 4, "--seed", seed)
    data = {out: (tmp_path / out / "validation.parquet").read_bytes() for out in "abc"}
    assert data["a"] == data["b"] != data["c"]


def test_the_instruction_may_be_empty(folder, tmp_path):
    prepare(folder, tmp_path / "out", "--validation", 4, "--instruction", "")
    assert read_split(tmp_path / "out", "test")[0]["prompt"][0]["content"] == "What is 15 and 15?"


def test_no_question_is_in_two_splits_and_what_is_dropped_is_told(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    again = {"question": "What is  3 and 3?\n", "answer": "#### 6"}  # differs in white space only
    write_lines(source / "train.jsonl", [*PROBLEMS[:10], again, PROBLEMS[12]])
    write_lines(source / "test.jsonl", PROBLEMS[10:15])
    done = prepare(source, tmp_path / "out", "--validation", 2)
    assert re.search(r"^train +12 +12 +10 +2  train 8, validation 2$", done.stdout, re.M)
    assert "dropped 1: the same question is in test\n" in done.stdout
    assert "dropped 1: the same question is in this file\n" in done.stdout


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("#### 1,234", "1234"),
        ("#### -3", "-3"),
        ("#### 1 #### 2", "2"),
        ("####2.5 ", "2.5"),
    ],
)
def test_the_final_answer(answer, truth):
    assert gsm8k.final_answer(answer, "here") == truth


GOOD = json.dumps(PROBLEMS[0]).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"question": "Q"', "line 2: not JSON"),
        (GOOD + b"\n[1]\n", "line 3: not a JSON object but list"),
        (GOOD + b'{"question": "Q"}\n', "line 2: no field 'answer' (fields found: question)"),
        (b'{"question": "Q", "answer": 5}\n', "line 1: field 'answer' is not text but int"),
        (b'{"question": " ", "answer": "#### 5"}\n', "line 1: field 'question' is empty"),
        (GOOD + b'{"question": "Q", "answer": "5"}\n', "line 2: field 'answer' has no '####'"),
        (GOOD + b'{"question": "Q", "answer": "#### V"}\n', "line 2: field 'answer' has 'V' after"),
        (b'{"question": "\\ud800", "answer": "#### 5"}\n' + GOOD, "surrogate"),
        (GOOD + GOOD.replace(b"What", b"Wh\xe4t"), "line 2: not UTF-8"),
        (b"\n", "holds no rows"),
        (b"[" * 100_000, "line 1: not JSON"),
        (GOOD, "--validation 1 must be at least 1 and leave some of the 1 train problems"),
    ],
)
def test_a_bad_file_is_one_line_and_writes_nothing(tmp_path, content, message):
    source = tmp_path / "train.jsonl"
    source.write_bytes(content)
    assert_refused(prepare(source, tmp_path / "out", "--validation", 1), message, tmp_path / "out")


def test_bad_sources(tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert_refused(prepare(tmp_path / "none.jsonl", out), "none.jsonl does not exist", out)
    assert_refused(prepare(empty, out), "empty has no train file", out)
    (tmp_path / "train.csv").write_text("question,answer\n")
    assert_refused(prepare(tmp_path / "train.csv", out), "neither .jsonl nor .parquet", out)
    (tmp_path / "train.parquet").write_text("no")
    assert_refused(prepare(tmp_path / "train.parquet", out), "is not a parquet file", out)
    for name in ("train-0.jsonl", "train-1.jsonl"):
        write_lines(empty / name, PROBLEMS)
    assert_refused(prepare(empty, out), "more than one train file: train-0.jsonl, train-1.jsonl", out)


def test_a_folder_may_hold_other_data_sets(tmp_path):
    write_lines(tmp_path / "math_train.jsonl", [{"problem": "?"}])
    write_lines(tmp_path / "gsm8k_train.jsonl", PROBLEMS)
    (train,) = gsm8k.read_local(tmp_path)
    assert len(train.records) == 20
    assert train.origin["name"] == "gsm8k_train.jsonl"


def test_the_hub(monkeypatch):
    commit = "0123456789" * 4
    stub_hub(monkeypatch, {("openai/gsm8k", "main"): {"train": PROBLEMS[:15], "test": PROBLEMS[15:]}}, commit=commit)
    train, test = read_hub("openai/gsm8k", ["train", "test"], gsm8k.FIELDS, config="main")
    assert [record.fields for record in train.records] == PROBLEMS[:15]
    assert test.records[4] == Record(PROBLEMS[19], 4, "openai/gsm8k/main test, row 5")
    assert (test.origin["name"], test.origin["revision"], test.origin["rows"]) == ("openai/gsm8k/main", commit, 5)


def test_a_hub_without_the_split(monkeypatch):
    stub_hub(monkeypatch, {("openai/gsm8k", "main"): {"train": PROBLEMS[:15]}})
    with pytest.raises(DataError, match="openai/gsm8k/main has no split 'test'.*--source"):
        read_hub("openai/gsm8k", ["train", "test"], gsm8k.FIELDS, config="main")


def test_the_command_reads_the_hub(monkeypatch, tmp_path):
    stub_hub(monkeypatch, {("openai/gsm8k", "main"): {"train": PROBLEMS[:15], "test": PROBLEMS[15:]}})
    done = run_here(gsm8k, "--out", tmp_path, "--validation", 4, "--revision", "v1")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [source["revision"] for source in manifest["sources"]] == ["v1", "v1"]


def test_the_hub_out_of_reach(monkeypatch):
    stub_hub(monkeypatch, {})
    with pytest.raises(DataError, match=r"ConnectionError: no route to host.*--source"):
        read_hub("openai/gsm8k", ["train", "test"], gsm8k.FIELDS, config="main")


@needs_real_data
def test_the_real_data(tmp_path):
    done = prepare(REAL_DATA, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train +7473 +7473 +7473 +0  train 7100, validation 373$", done.stdout, re.M)
    assert re.search(r"^test +1319 +1319 +1319 +0  test 1319$", done.stdout, re.M)
    rows = {split: read_split(tmp_path, split) for split in ("train", "validation", "test")}
    for part, commas, negative in ((("train", "validation"), 79, 3), (("test",), 14, 2)):
        truths, golds = [], []
        for row in (row for split in part for row in rows[split]):
            truth, answer = row["reward_model"]["ground_truth"], row["extra_info"]["answer"]
            assert compute_score(row["data_source"], answer, truth)["score"] == 1.0
            truths.append(truth)
            golds.append(answer.rpartition("####")[2].strip())
        assert sum("," in gold for gold in golds) == commas
        assert sum(truth.startswith("-") for truth in truths) == negative
        assert all(re.fullmatch(r"-?\d+", truth) for truth in truths)
