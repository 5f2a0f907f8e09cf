"""The benchmark of grading: both sides run, its last line is a ratio, bad input is one line."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks.grading import responses
from tests.conftest import REPOSITORY


def bench(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.grading", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


@pytest.fixture
def sources(tmp_path):
    rows = {
        "gsm8k": [{"question": "?", "answer": f"so\n#### {n}"} for n in (18, 3)],
        "math": [{"problem": "?", "answer": answer} for answer in (r"\frac{1}{2}", r"2\sqrt{3}", "(1,2)", "")],
    }
    paths = {name: tmp_path / f"{name}.jsonl" for name in rows}
    for name, path in paths.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    return paths


def test_it_measures_both_sides(sources):
    done = bench("--source", *sources.values(), "--gsm8k", 30, "--math", 6)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["GSM8K, ours", "MATH, ours", "MATH, math-verify alone"]
    assert re.fullmatch(r"ratio: \d+\.\d\d", lines[-1])
    assert lines[1].endswith(" 10 correct") and lines[2].endswith(" 2 correct")


def test_a_source_that_lacks_one_side_is_one_line(sources, tmp_path):
    for paths, message in (([sources["math"]], "no answers of GSM8K"), ([tmp_path / "none.jsonl"], "does not exist")):
        done = bench("--source", *paths)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_third_of_the_responses_is_right():
    pairs = responses(["1", "22", "3.5"], 9, "#### %s")
    assert sum(response.endswith(f"#### {gold}") for response, gold in pairs) == 3
