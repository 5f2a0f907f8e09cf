"""Evaluation results as the paper's table."""

from __future__ import annotations

import copy
import csv
import json

import pytest

from recipe.spo.plots.__main__ import main
from recipe.spo.plots.published import LONG_COT, published
from recipe.spo.plots.results import ResultError, data_name, read_named, read_result
from recipe.spo.plots.table import lay_out, markdown

RESULT = {
    "run": {
        "model": {"name": "ours"},
        "data": {"name": "HuggingFaceH4/MATH-500"},
        "protocol": {"max_context": 2048, "temperature": 0.6, "top_p": 0.95, "seed": 0},
        "grader": {"function": "m:f"},
    },
    "overall": {
        "questions": 500,
        "samples": 4,
        "mean_at_n": {"value": 0.566, "standard_error": 0.0123, "low": 0.54, "high": 0.59},
        "unfinished": {"value": 0.1},
        "tokens": {"value": 812.3},
    },
}


def changed(**changes):
    """RESULT with fields changed; `a__b` is the field b of a, None takes it away."""
    result = copy.deepcopy(RESULT)
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = result
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return result


@pytest.fixture
def write(tmp_path):
    def write_result(name, **changes):
        path = tmp_path / name
        path.write_text(json.dumps(changed(**changes)))
        return path

    return write_result


def test_contexts_and_models_down_data_across(write):
    cells = [
        read_result(
            write(
                "a",
                run__protocol__max_context=4096,
                overall__mean_at_n__value=0.74,
                overall__mean_at_n__standard_error=0.01,
            )
        ),
        read_result(write("b")),
        read_result(write("c", run__model__name="base", overall__mean_at_n__value=0.5)),
        read_result(
            write(
                "d",
                run__model__name="base",
                run__data__name="math-ai/aime24",
                overall__questions=30,
                overall__mean_at_n__value=0.1,
            )
        ),
    ]
    assert markdown(lay_out(cells)) == (
        "| context | model | MATH-500 | AIME 2024 |\n"
        "| ---: | --- | ---: | ---: |\n"
        "| 2K | ours | 56.6 ± 1.2 | - |\n"
        "| 2K | base | 50.0 ± 1.2 | 10.0 ± 1.2 |\n"
        "| 4K | ours | 74.0 ± 1.0 | - |\n"
        "\n"
        "* Accuracy in percent ± one standard error; a context counts tokens of prompt and response together.\n"
        "* mean of 4 samples a question, temperature 0.6, top-p 0.95, grader m:f.\n"
        "* Questions: MATH-500 500, AIME 2024 30.\n"
    ), "ours was seen first"


def test_different_protocols_have_a_footnote_each(write):
    cells = [
        read_result(write("a")),
        read_result(
            write(
                "b",
                run__model__name="m",
                overall__samples=1,
                run__grader__function="math-verify",
                overall__questions=100,
            )
        ),
    ]
    grid = lay_out(cells)
    assert [row.cells[2] for row in grid.sections[0]] == ["56.6 ± 1.2 [1]", "56.6 ± 1.2 [2]"]
    assert grid.notes[1:] == [
        "[1] 500 questions of MATH-500, mean of 4 samples a question, temperature 0.6, top-p 0.95, grader m:f.",
        "[2] 100 questions of MATH-500, 1 sample a question, temperature 0.6, top-p 0.95, grader math-verify.",
        "Questions: MATH-500 100 or 500.",
    ]


@pytest.mark.parametrize(
    "missing",
    [
        "run__model__name",
        "run__data__name",
        "overall__questions",
        "run__protocol__max_context",
        "overall__samples",
        "run__protocol__temperature",
        "run__protocol__top_p",
        "overall__mean_at_n__value",
        "run__grader__function",
        "overall__tokens__value",
    ],
)
def test_a_missing_field_is_named_with_its_file(write, missing):
    path = write("result.json", **{missing: None})
    with pytest.raises(ResultError, match=rf"result\.json lacks {missing.replace('__', '.')}$"):
        read_result(path)


def test_the_graders_options_are_said(write):
    assert read_result(write("r", run__grader__options={"task": "math"})).grader == "m:f (task=math)"
    assert read_result(write("s", run__grader__options={})).grader == "m:f"
    with pytest.raises(ResultError, match="run.grader.options is 'math', not a mapping"):
        read_result(write("t", run__grader__options="math"))


def test_one_question_has_no_standard_error(write):
    assert read_result(write("r", overall__mean_at_n__standard_error=None)).standard_error is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"overall__mean_at_n__value": 56.6}, "overall.mean_at_n.value is 56.6; it is a fraction"),
        ({"overall__mean_at_n__standard_error": "0.1"}, "overall.mean_at_n.standard_error is '0.1', not a number"),
        ({"overall__mean_at_n__standard_error": float("nan")}, "overall.mean_at_n.standard_error is nan, not a number"),
        ({"run__protocol__max_context": 0}, "run.protocol.max_context is 0, not a whole number above 0"),
        ({"overall__questions": True}, "overall.questions is True, not a number"),
        ({"run__model__name": ""}, "run.model.name is '', not a name"),
        ({"run__data": "MATH-500"}, "lacks run.data.name"),
    ],
)
def test_an_impossible_field_is_named(write, changes, complaint):
    with pytest.raises(ResultError) as error:
        read_result(write("r.json", **changes))
    assert complaint in str(error.value) and "r.json" in str(error.value)


def test_two_results_for_a_cell_name_both_files(write, capsys, tmp_path):
    one, two = write("one.json"), write("two.json", run__data__name="math_500")
    assert main(["table", str(one), str(two), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "two results for ours, MATH-500, context 2048" in error and str(one) in error and str(two) in error
    assert error.count("\n") == 1


def test_labels_tell_results_of_one_model_apart(write, tmp_path, capsys):
    one, two = write("one.json"), write("two.json", overall__mean_at_n__value=0.5)
    assert main(["table", f"before={one}", f"after={two}", "--out", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out/table.md").read_text()
    assert "| 2K | before | 56.6 ± 1.2 |" in table and "| 2K | after | 50.0 ± 1.2 |" in table
    assert main(["table", f"={one}"]) == main(["table", "before="]) == 2
    assert capsys.readouterr().err.count("is not LABEL=result.json") == 2


def test_the_folder_of_an_evaluation_is_its_result(write, tmp_path):
    path = write("result.json")
    assert read_named(str(path.parent)) == read_named(str(path))
    assert read_named(f"mine={path.parent}").model == "mine"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match="empty/result.json cannot be read"):
        read_named(str(tmp_path / "empty"))


def test_an_equals_sign_in_the_name_of_a_file_is_no_label(write):
    assert read_named(str(write("lr=1.json"))).model == "ours"
    with pytest.raises(ResultError, match="none.json cannot be read"):
        read_named("ours=none.json")


def test_files_that_are_none_are_one_line(tmp_path, capsys):
    assert main(["table", str(tmp_path / "none.json")]) == 2
    (tmp_path / "bad.json").write_text('{\n"model": oops}')
    assert main(["table", str(tmp_path / "bad.json")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "none.json cannot be read" in first and "bad.json, line 2: not JSON" in second


def test_names_of_the_same_problems_are_one():
    assert {data_name(name) for name in ("HuggingFaceH4/MATH-500", "math_500", "MATH500")} == {"MATH-500"}
    assert data_name("HuggingFaceH4/aime_2024") == data_name("AIME24") == "AIME 2024"
    assert data_name("you/test") == "you/test"


def test_published_numbers_are_the_papers_and_marked(write, tmp_path, capsys):
    assert len(published()) == 5 * 2 * 3
    assert LONG_COT["SPO-tree"]["MATH-500"] == (0.736, 0.828, 0.848)
    assert LONG_COT["GRPO"]["AIME 2024"] == (0.033, 0.200, 0.333)
    path = write("r.json", run__model__name="SPO-tree")
    assert main(["table", str(path), "--published", "--out", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out/table.md").read_text()
    assert "| 2K | SPO-tree | 56.6 ± 1.2 [1] | - |" in table
    assert "| 2K | SPO-tree (published) | 73.6 [2] | 10.0 [2] |" in table
    assert "not measured by us" in table and "1 sample a question" in table and "lighteval" in table
    assert "SPO-tree (published)" in capsys.readouterr().out
    with open(tmp_path / "out/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["published"] for row in rows] == ["no"] + ["yes"] * 30
    assert (rows[0]["mean"], rows[0]["mean_length"], rows[0]["source"]) == ("0.566", "812.3", str(path))
    assert rows[1]["standard_error"] == ""
