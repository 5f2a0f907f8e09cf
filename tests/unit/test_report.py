"""Summing a run up, and its picture."""

from __future__ import annotations

import json
import sys

import pytest

from recipe.spo.report import ReportError, main, plot, summary
from recipe.spo.training_log import curves


def records():
    return [
        {"step": 0, "data": {"val-core/spo/arithmetic/acc/mean@1": 0.25}},
        {"step": 1, "data": {"spo/root_value": 0.2, "spo/generated_tokens": 100.0, "spo/questions": 4}},
        {
            "step": 2,
            "data": {"spo/root_value": 0.4, "spo/generated_tokens": 50.0, "val-core/spo/arithmetic/acc/mean@1": 0.75},
        },
    ]


def test_summary_has_what_a_script_needs():
    result = summary(curves(records()), validation_size=256, seconds=12.34)
    assert result["accuracy_before"] == 0.25 and result["accuracy_after"] == 0.75
    assert result["accuracy_standard_error"] == pytest.approx((0.75 * 0.25 / 256) ** 0.5)
    assert {"validation_size", "steps", "generated_tokens", "trained_tokens", "seconds"} <= result.keys()
    json.dumps(result)


def test_a_run_without_validation_is_refused():
    with pytest.raises(ReportError, match="no validation before and after"):
        summary(curves(records()[1:]), 256, 1.0)


def test_the_picture_is_a_png(tmp_path):
    plot(curves(records()), 256, "title", tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_draws_or_says_in_a_line_why_not(tmp_path, monkeypatch, capsys):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records()))
    monkeypatch.setattr(sys, "argv", ["report", str(log), "--out", str(tmp_path)])
    assert main() == 0 and (tmp_path / "curve.png").exists()
    log.write_text("no record\n")
    assert main() == 2
    assert "metrics.jsonl, line 1: not JSON" in capsys.readouterr().err
