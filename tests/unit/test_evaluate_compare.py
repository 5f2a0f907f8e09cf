"""Two evaluations side by side."""

from __future__ import annotations

import json

import pytest

from recipe.spo.evaluation.command import main
from recipe.spo.evaluation.comparison import compare, load
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.store import Store, write_json


def finished(folder, scores, prefix="q", digest="d", prompts="p", **changed):
    """An evaluation's folder with two samples a question."""
    run = {
        "data": {"name": folder.name, "prompts_sha256": prompts},
        "protocol": {"temperature": 1.0, "stop": []},
        "grader": {"function": "g", "options": {}, "versions": {"sympy": "1"}},
        "engine": {"vllm": "1", "dtype": "float32"},
    }
    for part, values in changed.items():
        run[part] |= values
    store = Store(folder, run)
    rows = [
        {"question_id": f"{prefix}{i}", "question_digest": f"{digest}{i}", "sample": sample, "score": score}
        for i, pair in enumerate(scores)
        for sample, score in enumerate(pair)
    ]
    store.write_chunk(0, rows)
    store.merge(1)
    write_json(folder / "result.json", {"run": run})
    return folder


def test_difference_by_hand(tmp_path):
    first = finished(tmp_path / "a", [(1, 0), (0, 0), (1, 1), (0, 0)])
    second = finished(tmp_path / "b", [(1, 1), (1, 0), (1, 1), (0, 0)])
    (pair,) = compare([load(first), load(second / "result.json")])
    assert (pair["first_mean"], pair["second_mean"]) == (0.375, 0.625)
    assert pair["difference"]["value"] == 0.25 and pair["left_out"] == [0, 0] and not pair["differ_in"]


def test_a_single_question_has_no_interval(tmp_path, capsys):
    folders = [finished(tmp_path / name, [(score, score)]) for name, score in (("a", 1), ("b", 0))]
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    difference = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]["difference"]
    assert difference == {"value": -1, "standard_error": None, "low": None, "high": None, "p_value": 1}
    assert "-100.0% to" not in capsys.readouterr().out


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    folders = [str(finished(tmp_path / name, [(1, 0), (0, 1)])) for name in "ab"]
    (tmp_path / "file").write_text("text")
    assert main(["compare", *folders, "--out", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert "file is a file; give a folder" in printed.err and not printed.out


def test_three_results_make_three_pairs(tmp_path):
    folders = [finished(tmp_path / name, [(1, 0), (0, 1)]) for name in "abc"]
    assert len(compare([load(folder) for folder in folders])) == 3


def test_the_questions_of_both_are_compared_and_the_rest_is_told(tmp_path, capsys):
    first = finished(tmp_path / "a", [(1, 1), (0, 0), (1, 1)])
    second = finished(tmp_path / "b", [(1, 1), (1, 1)], protocol={"temperature": 0.5})
    assert main(["compare", str(first), str(second), "--out", str(tmp_path / "out")]) == 0
    (pair,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert (pair["questions"], pair["left_out"], pair["difference"]["value"]) == (2, [1, 0], 0.5)
    printed = " ".join(capsys.readouterr().out.split())
    assert "A and B differ in protocol.temperature: 1.0 and 0.5" in printed
    assert "A and B: 1 and 0 questions are in one only" in printed


def test_each_difference_in_how_results_came_about_is_a_note(tmp_path, capsys):
    first = finished(tmp_path / "a", [(1, 1), (0, 0)])
    second = finished(
        tmp_path / "b",
        [(1, 1), (0, 0)],
        prompts="other",
        protocol={"stop": ["[end]"]},
        grader={"options": {"grader": "minerva"}, "versions": {"sympy": "2"}},
        engine={"vllm": "2"},
    )
    assert main(["compare", str(first), str(second)]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        'note: A and B differ in data.prompts_sha256: "p" and "other" '
        "(other questions, instruction, chat template or tokenizer)",
        'note: A and B differ in engine.vllm: "1" and "2"',
        'note: A and B differ in grader.options.grader: null and "minerva"',
        'note: A and B differ in grader.versions.sympy: "1" and "2"',
        'note: A and B differ in protocol.stop: [] and ["[end]"]',
    ]


def test_different_data_are_refused_with_the_difference(tmp_path):
    first = load(finished(tmp_path / "a", [(1, 1), (0, 0)]))
    with pytest.raises(EvaluationError, match=r"no question in common: a \(2 questions\) and b"):
        compare([first, load(finished(tmp_path / "b", [(1, 1)], prefix="other"))])
    with pytest.raises(EvaluationError, match="2 of 2 questions differ in problem or answer, the first one q0"):
        compare([first, load(finished(tmp_path / "c", [(1, 1), (0, 0)], digest="changed"))])
    with pytest.raises(EvaluationError, match="two results or more"):
        compare([first])


@pytest.mark.parametrize("content", ["[]", "{}", '{"run":[]}', '{"run":{}}', '{"run":{"data":{}}}', "[" * 100_000])
def test_a_file_that_is_no_result_is_one_line(content, tmp_path, capsys):
    folders = [finished(tmp_path / name, [(1, 0)]) for name in "ab"]
    (folders[1] / "result.json").write_text(content)
    assert main(["compare", *map(str, folders)]) == 2
    error = capsys.readouterr().err
    assert f"{folders[1]} cannot be read: " in error and error.count("\n") == 1
    assert len(content) > 100 or "says not what was evaluated" in error


def test_a_result_is_not_compared_with_itself(tmp_path, capsys):
    folder = finished(tmp_path / "a", [(1, 1)])
    assert main(["compare", str(folder), str(folder / "result.json")]) == 2
    assert f"{folder} is given twice" in capsys.readouterr().err


def test_an_unfinished_evaluation_is_refused(tmp_path, capsys):
    folder = finished(tmp_path / "a", [(1, 1)])
    (folder / "result.json").unlink()
    assert main(["compare", str(folder), str(folder)]) == 2
    error = capsys.readouterr().err
    assert "holds no finished evaluation" in error and error.count("\n") == 1
