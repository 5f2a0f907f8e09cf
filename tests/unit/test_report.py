"""Reading verl's `file` tracker and summing a run up."""

from __future__ import annotations

import json

import pytest

from recipe.spo.report import ReportError, curves, plot, read_records, standard_error, summary


def records():
    return [
        {"step": 0, "data": {"val-core/spo/arithmetic/acc/mean@1": 0.25}},
        {"step": 1, "data": {"spo/root_value": 0.2, "spo/generated_tokens": 100.0, "spo/questions": 4}},
        {
            "step": 2,
            "data": {"spo/root_value": 0.4, "spo/generated_tokens": 50.0, "val-core/spo/arithmetic/acc/mean@1": 0.75},
        },
    ]


def test_series_and_totals():
    run = curves(records())
    assert run.accuracy == {0: 0.25, 2: 0.75}
    assert run.root_value == {1: 0.2, 2: 0.4}
    assert (run.totals["generated_tokens"], run.totals["questions"], run.steps) == (150, 4, 2)


def test_summary_has_what_a_script_needs():
    result = summary(curves(records()), validation_size=256, seconds=12.34)
    assert result["accuracy_before"] == 0.25 and result["accuracy_after"] == 0.75
    assert result["accuracy_standard_error"] == pytest.approx((0.75 * 0.25 / 256) ** 0.5)
    assert {"validation_size", "steps", "generated_tokens", "trained_tokens", "seconds"} <= result.keys()
    json.dumps(result)


def test_a_run_without_validation_is_refused():
    with pytest.raises(ReportError, match="no validation before and after"):
        summary(curves(records()[1:]), 256, 1.0)


def test_an_unfinished_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records()) + '{"step": 3, "da')
    assert [r["step"] for r in read_records(path)] == [0, 1, 2]
    assert read_records(tmp_path / "none.jsonl") == []


def test_the_picture_is_a_png(tmp_path):
    plot(curves(records()), 256, "title", tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert standard_error(0.5, 0) == 0.0
