"""Where answers are marked, and which of them are the final statement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.rewards.marked import MAX_ANSWER, MAX_RESPONSE, boxes, conclusion, final_statement


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"a \boxed{5}", ["5"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed 2.", ["2"]),
        (r"\boxed 12", ["12"]),
        (r"\boxed {3}", ["3"]),
        (r"\fbox{\{1\}}", [r"\{1\}"]),
        (r"\boxed{\boxed{3}}", [r"\boxed{3}"]),
        (r"\boxed{a \boxed{1} b} \boxed{2}", [r"a \boxed{1} b", "2"]),
        (r"\boxed{1} and \boxed{2}", ["1", "2"]),
        (r"{ \boxed{1}", ["1"]),
        (r"} \boxed{1} }", ["1"]),
        (r"\boxed{5", [None]),
        (r"\boxed{5 and \boxed{6}", [None, "6"]),
        (r"put it into \boxed{} please: \boxed{1}", ["1"]),
        (r"\boxed", []),
        (r"\boxed\frac12", []),
        (r"\boxedx{3}", []),
        (r"\\boxed{3}", []),
        ("\\boxed{%s}" % ("1" * MAX_ANSWER), ["1" * MAX_ANSWER]),
        ("\\boxed{%s}" % ("1" * (MAX_ANSWER + 1)), [None]),
        ("boxed{3}", []),
    ],
)
def test_boxes(text, found):
    assert [box.text for box in boxes(text)] == found


@pytest.mark.parametrize(
    ("text", "final"),
    [
        (r"\boxed{1}", ["1"]),
        ("\\boxed{1}\n\n\\boxed{2}", ["2"]),
        ("\\boxed{1}\n \t\n\\boxed{2}\nor \\boxed{3}\n\nDone.\n\n", ["2", "3"]),
        ("\\boxed{1}\n\\boxed{2}", ["1", "2"]),
        ("\\boxed{1}\r\n\r\n\\boxed{2}", ["2"]),
        ("none", []),
    ],
)
def test_final_statement(text, final):
    assert [box.text for box in final_statement(text, boxes(text))] == final


@pytest.mark.parametrize(
    ("response", "graded"),
    [
        ("a", "a"),
        ("<think>a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("a<think>b", "a"),
        ("<think>a</think>b<think>c", "b"),
        ("x" * (MAX_RESPONSE + 5) + "y", "x" * (MAX_RESPONSE - 1) + "y"),
    ],
)
def test_thoughts_are_not_graded(response, graded):
    assert conclusion(response) == graded


@given(st.text("\\boxedf{}{} 12\n", max_size=60))
def test_no_text_raises_and_starts_are_in_order(text):
    found = boxes(text)
    assert all(text.startswith(("\\boxed", "\\fbox"), box.start) for box in found)
    assert [box.start for box in found] == sorted({box.start for box in found})
