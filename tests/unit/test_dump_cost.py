"""The benchmark of dumping: what it reads of a log, what it counts, and its last line."""

from __future__ import annotations

import json
import random
import re

import pytest
from transformers import AutoTokenizer

from benchmarks import dump_cost
from benchmarks.dump_cost import LIMIT, STEPS, Cost, cost_of_a_step, grow, main, read_run
from recipe.spo.dump import TREES, Dump, read_dump
from recipe.spo.recorder import Recorder
from recipe.spo.training_log import LogError
from tests.unit.test_settings import settings


def log(path, *records):
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in enumerate(records)))
    return path


def step(seconds: float, **more: float) -> dict:
    return {"spo/questions": 24, "timing_s/step": seconds, **more}


def test_a_validation_is_not_in_the_steps_time_and_is_not_taken_off(tmp_path):
    """verl times `testing` after it closed `step`."""
    validated = step(10.0, **{"timing_s/testing": 6.0, "spo/dump/seconds": 0.5})
    run = read_run(log(tmp_path / "m.jsonl", {"val-core/s/acc/mean@1": 0.5}, step(2.0), validated))
    assert (run.step_seconds, run.questions, run.dump_seconds) == (6.0, 24, 0.5)


def test_a_log_without_steps_is_refused(tmp_path):
    with pytest.raises(LogError, match="has no training step"):
        read_run(log(tmp_path / "m.jsonl", {"val-core/s/acc/mean@1": 0.5}))


def test_the_last_line_is_the_limit_over_the_cost(tmp_path, model, capsys):
    file = log(tmp_path / "m.jsonl", {}, step(1000.0))
    small = ("--branch-factors", "2", "2", "--segment-length", "3", "--last-length", "4")
    assert main(["--log", str(file), "--model", model, *small]) == 0
    shown = capsys.readouterr().out
    ratio = re.fullmatch(r"ratio: (\d+\.\d\d)", shown.splitlines()[-1])
    milliseconds = float(re.search(r"dumping on: ([\d.]+) ms a step", shown)[1])
    assert abs(20_000 / float(ratio[1]) - milliseconds) <= 0.006 and "22 tokens a tree" in shown


@pytest.fixture
def writes(monkeypatch):
    """The records that reach the dump."""
    written, write = [], Dump.write
    monkeypatch.setattr(
        Dump, "write", lambda self, kind, records: written.extend(records) or write(self, kind, records)
    )
    return written


def cost(spo, tree, decode) -> Cost:
    return cost_of_a_step(spo, tree, prompt_ids=[1, 2], questions=24, decode=decode)


def test_at_the_default_rate_two_questions_of_every_tenth_step_are_worked_on(tmp_path, writes):
    tree, decoded = grow(random.Random(0), (2, 2), (3, 4), vocabulary=50), []
    cost(settings(dump_dir=str(tmp_path)), tree, lambda ids: decoded.append(ids) or "x" * len(ids))
    assert STEPS == 40 and [record["step"] for record in writes] == [1, 1, 11, 11, 21, 21, 31, 31]
    ids = {1, 2, *(token for node in nodes(tree) for token in node.token_ids)}
    assert len(decoded) == 2 * len(ids)  # an id twice, once a run


def nodes(tree):
    yield tree
    for child in tree.children:
        yield from nodes(child)


def test_with_dumping_off_nothing_is_chosen_decoded_or_written(writes, monkeypatch):
    def never(*arguments, **named):
        raise AssertionError("called with dumping off")

    monkeypatch.setattr(dump_cost, "choose", never)
    monkeypatch.setattr(Recorder, "__init__", never)
    cost(settings(dump_dir=None), grow(random.Random(0), (2, 2), (3, 4), vocabulary=50), never)
    assert not writes


def test_trees_of_6_6_6_cost_less_than_the_limit_of_a_demos_step(tmp_path, model):
    """Of the processor, which another program's load hardly changes; it is about a twentieth of the limit."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tree = grow(random.Random(0), (6, 6, 6), (30, 30, 100), len(tokenizer))
    spent = cost(settings(dump_dir=str(tmp_path)), tree, tokenizer.decode)
    assert len(list(read_dump(tmp_path, TREES))) == 8
    assert 0 < spent.processor < LIMIT * 10.0  # seconds
