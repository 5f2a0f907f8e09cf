"""The page as text: what a model wrote cannot leave its place, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.viewer.command import main
from recipe.spo.viewer.page import SCRIPTS, embedded, page, page_data
from recipe.spo.viewer.records import read_questions
from tests.conftest import REPOSITORY
from tests.dumped import chain, recorded, tree

HOSTILE = [
    "</script><script>window.pwned = 1; alert(1)</script>",
    "<!--<script>",
    "-->",
    "<img src=x onerror='window.pwned = 2'>",
    '"; window.pwned = 3; //',
    "\u2028window.pwned = 4\u2029",
    "]]>&lt;&amp;</SCRIPT ><svg onload=window.pwned=5>",
    "\ud800@SCRIPT@@DATA@\\1\x00\x1b[31m",
    "<a href='javascript:window.pwned=6'>x</a>",
    "__proto__",
]


def hostile_decode(token_ids) -> str:
    return "".join(HOSTILE[token % len(HOSTILE)] for token in token_ids)


class Elements(HTMLParser):
    """The elements of a page as a browser finds them, with the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.texts: dict[int, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem:
            self.texts[len(self.found) - 1] = self.texts.get(len(self.found) - 1, "") + data

    def of(self, tag: str) -> list[tuple[dict, str]]:
        return [(attrs, self.texts.get(i, "")) for i, (name, attrs) in enumerate(self.found) if name == tag]


@pytest.fixture
def questions(tmp_path):
    recorded(tmp_path, tree(random.Random(0), (3, 3)), decode=hostile_decode, uid=HOSTILE[0])
    recorded(tmp_path, chain(random.Random(0)), decode=hostile_decode, step=2)
    return read_questions(tmp_path)


def test_hostile_text_adds_no_element_and_arrives_whole(questions):
    harmless = Elements(page([question_without_text(q) for q in questions]))
    elements = Elements(page(questions))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in harmless.found]
    data = {attrs["id"]: json.loads(text) for attrs, text in elements.of("script") if "id" in attrs}
    assert data["question-0"] == json.loads(json.dumps(page_data(questions[0])))
    assert any(HOSTILE[0] in text for node in data["question-1"]["nodes"] for text in node["texts"])
    assert set(data) == {"questions", "question-0", "question-1"}


def question_without_text(question):
    tokens = [replace(node.tokens, texts=["x"] * len(node.tokens.texts)) for node in question.nodes]
    nodes = [replace(node, tokens=t) for node, t in zip(question.nodes, tokens, strict=True)]
    return replace(question, uid="u", nodes=nodes)


@given(st.text(st.characters(), max_size=60))
def test_embedded_text_has_no_sign_that_html_reads_and_comes_back(text):
    written = embedded({"text": text})
    assert written.isascii() and not set(written) & set("<>&'")
    assert json.loads(written) == {"text": text}


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError):
        embedded([float("nan")])


def test_the_policy_allows_this_script_and_style_and_nothing_else(questions):
    elements = Elements(page(questions))
    (policy,) = [a["content"] for a, _ in elements.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    (script,) = [text for attrs, text in elements.of("script") if "type" not in attrs]
    (style,) = [text for _, text in elements.of("style")]
    for rule, text in (("script-src", script), ("style-src", style)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert not any(name.startswith("on") or name == "style" for _, attrs in elements.found for name in attrs)


def test_the_page_names_no_other_place(questions):
    text = page(questions)
    assert not re.search(r"https?://|src=|url\(|@import|import\(|fetch\(|XMLHttpRequest|WebSocket", without_data(text))
    assert [attrs["href"] for attrs, _ in Elements(text).of("link")] == ["data:,"]


def without_data(text: str) -> str:
    return re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)


def test_no_script_makes_elements_of_text():
    for name in SCRIPTS:
        source = (files("recipe.spo.viewer") / name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser", source
        )


def test_package_data_holds_every_part():
    shipped = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    suffixes = {pattern.removeprefix("*") for pattern in shipped["recipe.spo.viewer"]}
    parts = [file for file in (REPOSITORY / "recipe/spo/viewer").iterdir() if file.is_file() and file.suffix != ".py"]
    assert {file.suffix for file in parts} == suffixes
    assert {file.name for file in parts if file.suffix == ".js"} == set(SCRIPTS)


def test_the_command_writes_a_page_of_the_newest_questions(tmp_path, capsys):
    for step in (1, 11, 21):
        recorded(tmp_path, tree(random.Random(step), (2, 2)), step=step)
    out = tmp_path / "page.html"
    assert main([str(tmp_path), "--out", str(out), "--limit", "2"]) == 0
    said = capsys.readouterr()
    assert "the newest 2 of 3 questions" in said.err and f"{out}   2 questions" in said.out
    (listed,) = [json.loads(t) for attrs, t in Elements(out.read_text()).of("script") if attrs.get("id") == "questions"]
    assert [entry["step"] for entry in listed] == [21, 11]
    assert main([str(tmp_path)]) == 0 and (tmp_path / "view.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "--limit 0"),
        (["--terminal", "--out", "x.html"], "--out is for the page"),
        (["--step", "9"], "no question with --step 9"),
        (["--out", "page"], "--out page is no name of a page: give one that ends in .html"),
        (["--question", ""], "--question is empty"),
        (["--out", "/dev/null/x.html"], "--out /dev/null/x.html cannot be written: /dev/null is not a folder"),
        (["--out", "/dev"], "--out /dev is a folder: give a file, such as /dev/view.html"),
        (["--out", f"/dev/{'x' * 300}.html"], "cannot be written: File name too long"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(tmp_path, capsys, options, message):
    recorded(tmp_path, tree(random.Random(0), (2,)))
    assert main([str(tmp_path), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line and "partial" not in line


def test_a_page_does_not_take_the_place_of_a_dump(tmp_path, capsys):
    recorded(tmp_path, tree(random.Random(0), (2,)))
    (dump,) = tmp_path.glob("trees-*.jsonl")
    before = dump.read_bytes()
    assert main([str(tmp_path), "--out", str(dump)]) == 2
    assert "give one that ends in .html" in capsys.readouterr().err
    assert dump.read_bytes() == before
