"""Wrong input of the value bench is one line and exit status 2, before vLLM is loaded."""

from __future__ import annotations

import pytest

from recipe.spo.bench.command import main
from recipe.spo.bench.suite import Suite, parse_tree
from recipe.spo.evaluation.errors import EvaluationError
from tests.refusals import refusal
from tests.unit.test_evaluate_command import data, model_folder  # noqa: F401  data is a fixture


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command prepares the environment of its process, which here is that of all tests."""
    monkeypatch.setattr("recipe.spo.bench.command.prepare_environment", lambda: None)


def check_error(capsys, arguments, message):
    error = refusal(main, arguments, capsys)
    assert message in error, error
    assert error.startswith("error:") and error.count("\n") == 1
    out = arguments[arguments.index("--out") + 1]
    assert not out.is_dir()  # nothing is made before all of the input has been looked at


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--questions", "1"], "--questions 1 must be at least 2"),
        (["--responses", "1"], "--responses 1 must be at least 2"),
        (["--truth", "1"], "--truth 1 must be at least 2"),
        (["--tolerance", "1"], "--tolerance 1.0 must be at least 0 and below 1"),
        (["--tolerance", "nan"], "--tolerance nan must be"),
        (["--temperature", "0"], "--temperature 0.0 must be above 0"),
        (["--top-k", "0"], "--top-k 0 must be -1 or at least 1"),
        (["--mask-threshold", "0"], "--mask-threshold 0.0 must be above 0"),
        (["--stop", ""], "--stop [''] must not be an empty string"),
        (["--cut-threshold", "1.5"], "--cut-threshold 1.5 must be"),
        (["--step-tokens", "inf"], "--step-tokens inf must be above 0"),
        (["--chunk", "0"], "--chunk 0 must be at least 1"),
        (["--groups"], "--groups [] must be given"),
        (["--groups", "8", "1"], "--groups 1 must be at least 2"),
        (["--trajectories", "1"], "--trajectories 1 must be at least 2"),
        (["--continuations", "0"], "--continuations 0 must be at least 1"),
        (["--cut-interval", "0"], "--cut-interval 0 must be at least 1"),
        (["--shrinkage", "-1"], "--shrinkage -1.0 must be at least 0"),
        (["--trees", "4-4"], "--trees '4-4' cannot be read"),
        (["--trees", "4-4-4,6-6@12"], "4-4-4 is not a part of 6-6"),
        (["--trees", "1-4@12"], "1-4 needs two levels or more"),
        (["--cut-trees", "4-4@0"], "--cut-trees 4-4@0: a segment has at least 1 token"),
        (["--trees", "4-4@12", "4-4@9"], "tree 4-4 is there twice"),
        (["--dtype", "int8"], "--dtype int8 must be one of"),
        (["--task", "poems"], "--task poems must be one of"),
        (["--grader", "nowhere:f"], "--grader nowhere:f"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 must be at least 1"),
        (["--questions", "5"], "--questions 5: "),
    ],
)
def test_a_wrong_option_is_named(capsys, tmp_path, data, options, message):  # noqa: F811
    model = model_folder(tmp_path / "model")
    # the fixture's file holds one question, so every other option is found wrong before that
    check_error(capsys, [model, "--data", data, "--out", tmp_path / "out", *options], message)


def test_a_wrong_file_is_named(capsys, tmp_path, data):  # noqa: F811
    model = model_folder(tmp_path / "model")
    check_error(
        capsys, [model, "--data", tmp_path / "none", "--out", tmp_path / "out"], f"{tmp_path / 'none'} does not"
    )
    (tmp_path / "taken").write_text("")
    check_error(capsys, [model, "--data", data, "--out", tmp_path / "taken"], f"{tmp_path / 'taken'} is a file")
    (tmp_path / "bad.parquet").write_text("no parquet")
    check_error(capsys, [model, "--data", tmp_path / "bad.parquet", "--out", tmp_path / "out"], "bad.parquet is not")


def test_a_wrong_model_is_named(capsys, tmp_path):
    from data_prep.writer import make_row, write_splits

    rows = [
        make_row(
            data_source="openai/gsm8k", question=f"{i} and one?", answer="", ground_truth="2", split="test", index=i
        )
        for i in range(2)
    ]
    write_splits(tmp_path / "data", {"test": rows})
    common = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--questions", "2"]
    check_error(capsys, [tmp_path / "nowhere", *common], f"{tmp_path / 'nowhere'} is neither a folder")
    empty = model_folder(tmp_path / "empty", without=("model.safetensors",))
    check_error(capsys, [empty, *common], "has no weights")


def test_the_default_methods_are_those_of_the_report():
    methods = Suite().methods(2)
    families = {method.family for method in methods}
    assert {"trajectory reward", "group mean", "leave-one-out", "chain", "VinePPO lines"} < families
    names = {method.name for method in methods}
    assert {f"chain, K={k}" for k in (1, 2, 4, 9)} < names
    assert {"tree 4-4-4", "tree 6-6-6", "tree 8-2-2", "tree 12-2", "cut-point tree 4-4-4"} < names
    assert {"tree 4-4-4, shrinkage 4", "tree 4-4-4, global+local", "tree 4-4-4, leave-one-out"} < names
    assert len(names) == len(methods)


def test_a_family_of_trees_is_read():
    assert parse_tree("--trees", "4-4-4,6-6-6@12", 2) == ([(4, 4, 4), (6, 6, 6)], 12)
    with pytest.raises(EvaluationError, match="--responses"):
        parse_tree("--trees", "4-4-4@12", 5)
