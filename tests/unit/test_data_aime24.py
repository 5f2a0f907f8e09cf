"""AIME 2024 preparation."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import aime24
from data_prep.writer import read_split
from tests.preparing import assert_refused, files, run_here, stub_hub, write_lines

PROBLEMS = [{"id": 60 + n, "problem": f"Find ${n}^2$.", "answer": f"{n * n:03}"} for n in range(30)]
CAPITALS = [
    {"ID": f"2024-I-{n}", "Problem": f"Find ${n}^2$.", "Solution": "Square it.", "Answer": n * n} for n in (1, 2)
]


def test_a_jsonl_file(tmp_path):
    source = write_lines(tmp_path / "aime.jsonl", PROBLEMS)
    done = run_here(aime24, "--source", source, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert re.search("^test +30 +30 +30 +0  test 30$", done.stdout, re.M)
    assert "AIME 2024 has 30" not in done.stdout
    assert set(files(tmp_path / "out")) == {"test.parquet", "manifest.json"}
    row = read_split(tmp_path / "out", "test")[5]
    assert row["data_source"] == "HuggingFaceH4/aime_2024"
    assert row["reward_model"]["ground_truth"] == "25"  # the source says 025
    assert row["extra_info"]["id"] == "65"


def test_the_other_mirror_spells_its_fields_with_capitals(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(CAPITALS), tmp_path / "in" / "aime_2024_problems.parquet")
    done = run_here(aime24, "--source", tmp_path / "in", "--out", tmp_path / "out")
    assert "AIME 2024 has 30 problems, this source 2\n" in done.stdout, done.stderr
    row = read_split(tmp_path / "out", "test")[1]
    assert (row["reward_model"]["ground_truth"], row["extra_info"]["answer"]) == ("4", "Square it.")
    assert row["extra_info"]["id"] == "2024-I-2"


def test_the_hub(monkeypatch, tmp_path):
    stub_hub(monkeypatch, {("HuggingFaceH4/aime_2024",): {"train": PROBLEMS}})
    done = run_here(aime24, "--out", tmp_path / "out")
    assert (done.returncode, len(read_split(tmp_path / "out", "test"))) == (0, 30)


@pytest.mark.parametrize("answer", ["1000", "-1", "1.5", "five", "٣", True, 1000])
def test_answers_that_no_paper_has(tmp_path, answer):
    source = write_lines(tmp_path / "aime.jsonl", [*PROBLEMS[1:], {"problem": "?", "answer": answer}])
    done = run_here(aime24, "--source", source, "--out", tmp_path / "out")
    assert_refused(done, "aime.jsonl, line 30: field 'answer' is ", tmp_path / "out")


def test_another_test_set_is_not_taken_for_aime(tmp_path):
    rows = [{"problem": f"{n}?", "answer": n} for n in range(31)]
    source = write_lines(tmp_path / "test.jsonl", rows)
    done = run_here(aime24, "--source", source, "--out", tmp_path / "out")
    assert_refused(done, "AIME 2024 has 30 problems, this source 31: it is another data set", tmp_path / "out")
