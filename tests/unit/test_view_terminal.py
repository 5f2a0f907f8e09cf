"""Questions on the terminal: readable at any usual width, and nothing that a model wrote does anything to it."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest

from recipe.spo.dump import TREES, read_dump
from recipe.spo.viewer.command import main
from recipe.spo.viewer.terminal import printable
from tests.dumped import chain, recorded, tree

#: What rich would take for its markup or an emoji, and what a terminal would obey.
HOSTILE = [
    "[/x] 4",
    "q[red]7",
    "[link=http://x]y",
    ":boom:",
    "a\x1b]0;owned\x07b",
    "a\x1b[2Jb\x9b2Jc",
    "a\u202eb\u2028c\ud800d\r\ne",
]


def test_the_terminal_shows_every_segment_and_no_escape(tmp_path, capsys):
    rollout = tree(random.Random(0), (3, 2), tokens=5)
    recorded(tmp_path, rollout, decode=lambda ids: "".join(f"[red]\x1b{i}" for i in ids))
    assert main([str(tmp_path), "--terminal"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and shown.count(" V ") == 9 and "[red]" in shown
    for node in rollout.children:
        assert f"{node.value - rollout.value:+.3f} V {node.value:.3f}" in shown
    assert shown.count("[correct 1]") + shown.count("[wrong 0]") == 6


def test_the_terminal_lists_questions_and_counts_continuations(tmp_path, capsys):
    recorded(tmp_path, tree(random.Random(0), (2,)), step=1, uid="first-question")
    recorded(tmp_path, chain(random.Random(0)), step=11)
    assert main([str(tmp_path), "--terminal"]) == 0
    shown = capsys.readouterr().out
    assert "first-qu" in shown and shown.count("(3 continuations)") == 8 and "before the first cut" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_is_readable(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for step in (1, 12345):
        rollout = tree(random.Random(step), (6, 6, 6), tokens=2)
        recorded(tmp_path, rollout, step=step, uid=f"{step:08}-more", decode=lambda ids: "verylong words " * len(ids))
    assert main([str(tmp_path), "--terminal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["step", "question", "uid", "method", "V(prompt)", "nodes", "prompt"]
    for line, step in zip(lines[1:3], (1, 12345), strict=True):
        *cells, value, nodes, prompt = line.split(maxsplit=6)
        assert cells == [str(step), "7", f"{step:08}", "tree"] and (nodes, value[:2]) == ("258", "0.")
        assert len(line) == width and prompt.startswith("verylong words") and prompt.endswith("…")


def test_a_long_index_leaves_room_for_the_rest(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for step in (1, 2):
        recorded(tmp_path, tree(random.Random(0), (2,)), step=step)
    rewrite(tmp_path, index="x" * 100, method="y" * 100)
    assert main([str(tmp_path), "--terminal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"1     {'x' * 19}…  u1") and "the sum" in lines[1] and len(lines[1]) <= 80


def rewrite(folder, verdict: str | None = None, **fields: str) -> None:
    """Put other texts into every record of a dump, and into the first segment."""
    (file,) = folder.glob("*.jsonl")
    records = [record | fields for record in read_dump(folder, TREES)]
    for record in records if verdict is not None else []:
        record["root"]["children"][0]["verdict"] = verdict
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["index", "uid", "method", "truth", "verdict", "texts"])
def test_text_in_any_field_is_shown_as_it_is_and_does_nothing(tmp_path, capsys, monkeypatch, field, text):
    monkeypatch.setenv("COLUMNS", "160")
    decode = (lambda ids: text * len(ids)) if field == "texts" else (lambda ids: "x" * len(ids))
    for step in (1, 2):
        recorded(tmp_path, tree(random.Random(0), (2,), tokens=1), step=step, decode=decode)
    if field != "texts":
        rewrite(tmp_path, **{field: text})
    assert main([str(tmp_path), "--terminal"]) == 0
    shown = capsys.readouterr().out
    assert {unicodedata.category(character) for character in shown if character != "\n"}.isdisjoint(
        {"Cc", "Cf", "Cs", "Zl", "Zp"}
    )
    if field != "truth":  # which the terminal does not show
        beginning = printable(text)[: {"uid": 8, "method": 11}.get(field)]
        assert shown.count(beginning) >= (1 if field == "verdict" else 2), shown  # in both lines of the list


def test_text_on_a_terminal_does_nothing_to_it():
    assert printable("a\x1b[31mb\x07\u202ec\nd\ud800\u2028") == "a\ufffd[31mb\ufffd\ufffdc↵d\ufffd\ufffd"
    assert printable("naïve 日本 €½²") == "naïve 日本 €½²"
