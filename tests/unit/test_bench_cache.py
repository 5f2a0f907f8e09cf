"""What the value bench finds in its folder: damaged files, other questions or references, fewer questions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recipe.spo.bench.command import _add_timing
from recipe.spo.bench.footprint import check_gradient, parameters
from recipe.spo.bench.store import Part
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.models import Model
from recipe.spo.rollout.ending import at_texts
from tests.unit import bench_runs
from tests.unit.bench_runs import SETTINGS, all_methods, bench
from tests.unit.chain_policy import ChainClient

CHUNKED = replace(SETTINGS, chunk=4)


def opened(folder, questions=8, **options):
    return bench(folder, all_methods(), questions, CHUNKED, **options)


def nothing():
    raise AssertionError("nothing is to be sampled")


@pytest.fixture
def finished(tmp_path):
    """A folder with a finished bench of 8 questions in 2 chunks."""
    opened(tmp_path).run()
    return tmp_path


def change(path, edit) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(edit(found)))


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["truth", "rollouts"])
@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"a": 1}', "null", "3", '{"of": 1, "rows": []}', "\xff"])
def test_a_file_that_is_none_of_ours_is_named_before_anything_is_sampled(finished, part, text):
    path = finished / part / "00001.json"
    path.write_bytes(text.encode("latin-1"))
    (finished / "truth" / "00000.json").unlink()
    with pytest.raises(EvaluationError, match=f"{part}/00001.json is damaged; delete it and run again"):
        opened(finished, client=nothing, gradient=nothing).run()


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("truth", lambda rows: []),
        ("truth", lambda rows: None),
        ("truth", lambda rows: [row[:1] for row in rows]),
        ("truth", lambda rows: [[{**each, "values": each["values"][1:]} for each in row] for row in rows]),
        ("truth", lambda rows: [[{**each, "errors": [None] * len(each["errors"])} for each in row] for row in rows]),
        ("truth", lambda rows: [[{k: v for k, v in each.items() if k != "sampled"} for each in row] for row in rows]),
        ("truth", lambda rows: [[{**each, "token_ids": 4} for each in row] for row in rows]),
        ("rollouts", lambda rows: rows[1:]),
        ("rollouts", lambda rows: [3] * len(rows)),
        ("rollouts", lambda rows: [{**row, "tokens": {}} for row in rows]),
        ("rollouts", lambda rows: [{**row, "segments": {name: [] for name in row["segments"]}} for row in rows]),
        ("rollouts", lambda rows: [{**row, "segments": {k: [[[0]]] * 2 for k in row["segments"]}} for row in rows]),
    ],
)
def test_rows_of_another_shape_are_damage(finished, part, edit):
    change(finished / part / "00001.json", lambda found: {**found, "rows": edit(found["rows"])})
    with pytest.raises(EvaluationError, match=f"{part}/00001.json is damaged"):
        opened(finished, client=nothing, gradient=nothing).run()


def test_an_array_of_another_shape_is_damage(finished):
    path = finished / "rollouts" / "00001.npy"
    for array in (np.load(path)[1:], np.full_like(np.load(path), np.nan), np.zeros(3)):
        np.save(path, array)
        with pytest.raises(EvaluationError, match="00001.npy is damaged; delete it and 00001.json"):
            opened(finished).gradients()


@pytest.mark.parametrize("text", ["xx", "[]", '{"seconds": "a", "generated_tokens": 1}', '{"seconds": NaN}', "null"])
def test_a_damaged_timing_is_said_and_written_anew(tmp_path, capsys, text):
    path = tmp_path / "timing.json"
    path.write_text(text)
    _add_timing(path, 2.0, 0)
    assert json.loads(path.read_text()) == {"seconds": 2.0, "generated_tokens": 0}
    assert "timing.json was damaged" in capsys.readouterr().err
    _add_timing(path, 1.0, 5)
    assert json.loads(path.read_text()) == {"seconds": 3.0, "generated_tokens": 5}


# --- of what -------------------------------------------------------------------------------------


def test_rollouts_are_never_paired_with_other_references(finished):
    """A truth that was deleted is sampled again; rollouts through the old references mean nothing with it."""

    class Other(ChainClient):
        def begin(self, seed):
            super().begin(seed + 1)

    (finished / "truth" / "00001.json").unlink()
    with pytest.raises(EvaluationError, match="rollouts/00001.json was made from other references .*; delete it"):
        opened(finished, client=Other).run()


def test_more_questions_go_on_where_fewer_ended(finished, tmp_path_factory):
    more = opened(finished, 16)
    assert more.done() == {"truth": 8, "rollouts": 8}
    more.run()
    whole = opened(tmp_path_factory.mktemp("whole"), 16)
    whole.run()
    assert more.measured() == whole.measured() and np.array_equal(more.gradients(), whole.gradients())
    fewer = opened(finished, 8, client=nothing, gradient=nothing)
    fewer.run()
    assert fewer.measured() == whole.measured()[:8]


def test_a_chunk_of_other_questions_is_named(tmp_path):
    opened(tmp_path, 6).run()  # its last chunk is of two questions
    with pytest.raises(EvaluationError, match="truth/00001.json was made from other questions than this bench has"):
        opened(tmp_path, 8, client=nothing).run()


def test_the_same_model_elsewhere_goes_on_and_an_older_folder_does_not(tmp_path):
    Part(tmp_path / "part", {"model": {"name": "here", "sha256": "a"}})
    Part(tmp_path / "part", {"model": {"name": "there", "sha256": "a"}})
    with pytest.raises(EvaluationError, match='model.sha256: there "a", now "b"'):
        Part(tmp_path / "part", {"model": {"name": "here", "sha256": "b"}})
    change(tmp_path / "part" / "run.json", lambda found: {"model": found["model"]})
    with pytest.raises(EvaluationError, match="was made by another version of the bench; choose another --out"):
        Part(tmp_path / "part", {"model": {"name": "here", "sha256": "a"}})


# --- stop texts, memory --------------------------------------------------------------------------


def test_a_stop_text_ends_references_and_rollouts_alike(tmp_path, monkeypatch):
    """Its token ends a response wherever it is: none goes on behind it, and one that it ends is finished."""
    token = 2
    rule = at_texts(["2"], lambda ids: "".join(map(str, ids)))
    monkeypatch.setattr(bench_runs, "SAMPLING", replace(bench_runs.SAMPLING, end_rule=rule))
    run = opened(tmp_path)
    run.run()
    ended = 0
    for question in run.measured():
        for index, reference in enumerate(question.references):
            node = reference.node
            assert token not in node.token_ids[:-1]
            ended += node.token_ids[-1] == token and node.finished
            for name, found in question.segments.items():
                assert not found[index] or found[index][-1].end == len(node.token_ids), name
    assert ended > 3


def test_a_model_too_large_for_the_gradient_view_is_refused(tmp_path, monkeypatch, capsys):
    import psutil

    (tmp_path / "model.safetensors").write_bytes(b"0" * 8000)
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 8000)
    assert parameters(Model("m", tmp_path, {"dtype": "bfloat16"})) == 4000
    assert parameters(Model("m", tmp_path, {})) == 2000
    check_gradient(Model("m", tmp_path, {}), 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("recipe.spo.bench.footprint.parameters", lambda model: 1_100_000_000)
    memory = type("Memory", (), {"available": 20e9})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    check_gradient(Model("m", tmp_path, {}), 3)
    assert "14.3 GB of memory" in (told := capsys.readouterr().err) and "8 backward passes" in told
    memory.available = 9e9
    with pytest.raises(EvaluationError, match="9.0 GB are free; leave it out with --no-gradient"):
        check_gradient(Model("m", tmp_path, {}), 3)
