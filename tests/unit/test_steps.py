"""Reasoning steps: what begins one, what does not, and that no text is lost."""

from __future__ import annotations

import json
import os
import random
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.steps import STEP_RULES, line_steps, sentence_steps
from tests.conftest import REPOSITORY

REAL_DATA = Path(os.environ.get("SPO_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
needs_math = pytest.mark.skipif(
    not (REAL_DATA / "math_train.jsonl").is_file(), reason="the real MATH files are not here"
)


def cut(text: str, steps: list[int]) -> list[str]:
    return [text[begin:end] for begin, end in pairwise([*steps, len(text)])]


def lines(text: str) -> list[str]:
    return cut(text, line_steps(text))


def sentences(text: str) -> list[str]:
    return cut(text, sentence_steps(text))


def test_the_rules_by_name():
    assert STEP_RULES == {"lines": line_steps, "sentences": sentence_steps}


@pytest.mark.parametrize("rule", STEP_RULES.values(), ids=STEP_RULES)
@pytest.mark.parametrize("text", ["", " \n\n ", "word", "#### 5", "---"])
def test_a_text_without_steps_is_one_step(rule, text):
    assert rule(text) == [0]


# --- lines ---------------------------------------------------------------------------------------


def test_a_line_is_a_step():
    assert lines("a = 1\nb = 2\nc = 3") == ["a = 1\n", "b = 2\n", "c = 3"]


def test_the_answer_line_belongs_to_the_last_step():
    assert lines("a = 1\nb = 2\n#### 2") == ["a = 1\n", "b = 2\n#### 2"]


def test_what_follows_the_answer_belongs_to_the_last_step_too():
    assert lines("a = 1\n\n####2\nmore\n#### 3\n") == ["a = 1\n\n####2\nmore\n#### 3\n"]


def test_empty_lines_belong_to_the_step_before_and_leading_ones_to_the_first():
    assert lines("\n \na\n\n  \nb\n\n") == ["\n \na\n\n  \n", "b\n\n"]


def test_an_answer_alone_is_one_step():
    assert lines("\n#### 5\nand more") == ["\n#### 5\nand more"]


@pytest.mark.parametrize("heading", ["#### Step 1", "#### **Step 1**", "#### 1. Add", "##### 5", "a #### 5"])
def test_a_heading_is_not_an_answer_line(heading):
    assert lines(f"a\n{heading}\nb") == ["a\n", heading + "\n", "b"]


@pytest.mark.parametrize("answer", ["#### -3", "#### $1,234", "####18.", " #### **5**", "#### \\boxed{5}", "####"])
def test_answer_lines(answer):
    assert len(lines(f"a\n{answer}\nb")) == 1


# --- sentences -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        ["One is odd.  ", "Is two? ", "No! ", "So it is even."],
        ["He said “Stop.” ", "(It was late.) ", "**It is.** ", "Then 5 came. ", "9 did not."],
        ["First\n\n", "second, lower case\n \n\n", "third"],
        ["It is so.\n", "Then a line\nthat goes on."],
        ["So $x = 3.$  ", "Then $y = \\boxed{4.}$ ", "$z$ is next."],
        ["Is $9 \\mid 27?$ ", "Yes."],
        ["We get\n\\[x = 3.\\]", "Hence\n\\[y = 4\\]", "Then \\[z\\]is known.\n\n", "\\[w\\]\n", "(Done.)"],
        ["See $$a = b.$$ ", "\\begin{align*}\na &= b. \\\\\nC &= D.\n\\end{align*}\n", "That is all."],
        ["See the figure.\n\n", '[asy]\nlabel("$A$. B"); // One. Two.\n\ndraw(a);\n[/asy]\n\n', "So it is."],
        ["The value is 5. ", "The point is A. ", "Hmm... ", "Wait, 1, 2, ... 9 remain."],
    ],
    ids=lambda steps: steps[0][:20],
)
def test_sentences(steps):
    assert sentences("".join(steps)) == steps


@pytest.mark.parametrize(
    "text",
    [
        "Use 3.14 here, e.g. Euler's, i.e. $e$, as in Fig. 2 and Eq. (3), cf. No. 5 by Dr. Who.",
        "It is in the U.S. Senate. ",
        "the sum a. b and c. d",
        "There are 5! = 120 or $n!$ $k$ of them",
        "1. First, add",
        "Step 1. First, add",
        "**2.** Second",
        "(b. Second",
        "We have \\[a = b\\]where $b$ is",
        "We have \\[a = b\\]\nwhere $b$ is",
        "We have \\[a = b\\] $c$",
        "so \\[x = \\left\\{ 1 \\right.\\] $x$ is",
        "the digits $0.333...$ $x$",
    ],
)
def test_not_the_end_of_a_sentence(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "formula",
    [
        "$a. B$",
        "$$a. B$$",
        "\\(a. B\\)",
        "\\[a. B\n\nC\\]",
        "$a\n. B$",
        "\\begin{x}a. B \\begin{x}c. D\\end{x} e. F\\end{x}",
        "\\begin{align*}a. B\n\nC\\end{align*}",
        "\\textbf{A note. It is {so. We} think. A}",
        "$\\text{if $x$. Then $y. Z$. A} b. C$",
        "$\\{a. B\\}$",
        "$a \\$ b. C$",
        "\\[a \\\\[4pt] b. C\\]",
        "$x. Y$$z. W$",
        "$x. Y $",
        "$a \\begin{x} $ \\end{x} b. C$",
        "[asy] a. B [/asy]",
    ],
)
def test_a_formula_is_never_cut(formula):
    assert sentences(f"Let {formula} be so. Then it is.") == [f"Let {formula} be so. ", "Then it is."]


def test_a_list_keeps_its_numbers():
    text = "Two cases.\n\n1. One is odd. It is 3.\n\n2. Two is even."
    assert sentences(text) == ["Two cases.\n\n", "1. One is odd. ", "It is 3.\n\n", "2. Two is even."]


def test_pieces_without_content_are_no_steps():
    assert sentences("---\n\nFirst.\n\n---\n\n** **\n\nSecond.") == ["---\n\nFirst.\n\n---\n\n** **\n\n", "Second."]


def test_money_is_not_a_formula():
    text = "It costs $5. Then she pays $6. So $x$ is 11. Good."
    assert sentences(text) == ["It costs $5. ", "Then she pays $6. ", "So $x$ is 11. ", "Good."]
    text = "It costs $5. So $x$ is. Then ($y. Z$) is. Good."
    assert sentences(text) == ["It costs $5. ", "So $x$ is. ", "Then ($y. Z$) is. ", "Good."]
    assert len(sentences("Let $x. Y $be so. Then.")) == 2  # no digit
    assert len(sentences("It is $54 \\% $ of $x. Y$. So be it.")) == 2  # a space before a closing dollar


@pytest.mark.parametrize("opening", ["$", "$$", "\\(", "{", "\\text{"])
def test_an_open_formula_or_brace_protects_nothing(opening):
    assert sentences(f"So {opening}x is. Then y. Z") == [f"So {opening}x is. ", "Then y. ", "Z"]
    assert sentences(f"So {opening}x is\n\nThen. $a. B$ is") == [f"So {opening}x is\n\n", "Then. ", "$a. B$ is"]


@pytest.mark.parametrize("opening", ["\\[", "\\begin{align}"])
def test_an_open_display_formula_protects_its_paragraph(opening):
    assert sentences(f"Now {opening}x. Then\n\nSo. Z") == [f"Now {opening}x. Then\n\n", "So. ", "Z"]


def test_an_open_figure_lasts_to_the_end():
    assert sentences("So it is.\n\n[asy]\nsize(1);\n\nDraw. A") == ["So it is.\n\n", "[asy]\nsize(1);\n\nDraw. A"]


@pytest.mark.parametrize("closing", ["$ ", "\\) ", "\\] ", "} ", "\\end{a} ", "[/asy] "])
def test_a_closing_sign_alone_does_no_harm(closing):
    assert sentences(f"One {closing}is. Two.") == [f"One {closing}is. ", "Two."]


pieces = st.sampled_from(
    [*'$${}aA1.!?)("*\n\n  ', "\\[", "\\]", "\\(", "\\)", "\\begin{a}", "\\end{a}", "\\text{", "\\", "[asy]", "[/asy]"]
    + ["####", "e.g.", ". ", ". A", "\n\n", "\ue003", "é", "你"]
)
soup = st.lists(pieces, max_size=60).map("".join)


@given(st.sampled_from(list(STEP_RULES)), st.one_of(soup, st.text(max_size=40)))
def test_any_text_gives_offsets_that_increase_from_zero(name, text):
    steps = STEP_RULES[name](text)
    assert steps[0] == 0
    assert all(a < b for a, b in pairwise(steps))
    assert len(steps) == 1 or steps[-1] < len(text)
    assert "".join(cut(text, steps)) == text
    if len(steps) > 1:
        assert all(piece.strip() for piece in cut(text, steps))


@given(soup)
def test_white_space_belongs_to_the_sentence_before(text):
    assert not any(text[begin].isspace() for begin in sentence_steps(text)[1:])


words = st.sampled_from(
    ["so it is", "with 3.14 of it", "cf. Theorem 2", "$x. Y$", "\\(n! = 2\\)", "\\[a. B\n\n.\\] is"]
)
built = st.builds(
    lambda middle, stop, gap: f"Now {' '.join(middle)}{stop}{gap}",
    st.lists(words, min_size=1, max_size=4),
    st.sampled_from([" it.", " it?", " it.)", " $z.$", " \\(z.\\)", " \\[z. \\qquad (1)\\]"]),
    st.sampled_from([" ", "  ", "\n", "\n\n"]),
)


@given(st.lists(built, min_size=1, max_size=6))
def test_sentences_put_together_come_apart(steps):
    assert sentences("".join(steps)) == steps


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "{\\)",
        "$5 ",
        ".",
        ". ",
        "\n ",
        ")",
        "A. ",
        "\\[x\\]A",
        "$$",
        ".}",
        "\\[",
        "[asy]",
        "\\begin{a}",
        "\\[\\begin{x}${",
    ],
)
def test_the_cost_is_linear(unit):
    begin = time.perf_counter()
    sentence_steps(unit * 30_000)
    assert time.perf_counter() - begin < 3  # measured: below 0.3 s; quadratic would be minutes


@needs_math
def test_real_solutions():
    with open(REAL_DATA / "math_train.jsonl", encoding="utf-8") as file:
        solutions = [json.loads(line)["solution"] for line in file]
    counts = []
    for solution in random.Random(0).sample(solutions, 2000):
        steps = sentences(solution)
        assert "".join(steps) == solution
        counts.append(len(steps))
        if "[asy]" in solution:
            continue  # its labels hold anything
        for step in steps:
            bare = re.sub(r"\\\\|\\\$|\\[{}]", "", step)
            assert bare.count("\\[") == bare.count("\\]")
            assert bare.count("\\begin{") == bare.count("\\end{")
            if solution.replace("\\$", "").count("$") % 2 == 0:
                assert bare.count("$") % 2 == 0, step
    assert 4 < sum(counts) / len(counts) < 6
