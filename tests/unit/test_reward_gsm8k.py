"""The GSM8K reward: what it reads out of a response, and what it calls right."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recipe.spo.rewards.gsm8k import MAX_DIGITS, grade
from recipe.spo.rewards.score import compute_score
from recipe.spo.rewards.verdict import Reason, Verdict


def graded(response: str, truth: str = "18") -> tuple[float, str]:
    result = compute_score("openai/gsm8k", response, truth)
    assert result["score"] == result["acc"]
    return result["score"], result["pred"]


@pytest.mark.parametrize(
    ("response", "truth", "score", "pred"),
    [
        ("9 + 9 = 18\n#### 18", "18", 1.0, "18"),
        ("#### 18.0", "18", 1.0, "18"),
        ("#### $18.00", "18", 1.0, "18"),
        ("####18", "18.0", 1.0, "18"),
        ("#### 1,234", "1234", 1.0, "1234"),
        ("#### 1234", "1,234", 1.0, "1234"),
        ("#### 1,234,567.50 dollars", "1234567.5", 1.0, "1234567.5"),
        ("#### -3", "-3", 1.0, "-3"),
        ("#### -$3", "-3", 1.0, "-3"),
        ("#### $-3", "-3", 1.0, "-3"),
        ("#### \u22123", "-3", 1.0, "-3"),
        ("#### 3", "-3", 0.0, "3"),
        ("#### .5", "0.5", 1.0, "0.5"),
        ("#### -0", "0", 1.0, "0"),
        ("#### 007", "7", 1.0, "7"),
        ("#### 100", "100", 1.0, "100"),
        ("#### 18.", "18", 1.0, "18"),
        ("#### 18, and that is it", "18", 1.0, "18"),
        ("#### The answer is 18 of them", "18", 1.0, "18"),
        ("#### 17\n\nno, wait\n#### 18", "18", 1.0, "18"),
        ("#### 18\n\n#### 17", "18", 0.0, "17"),
        ("#### 17\nno, wait\n#### 18", "18", 0.0, ""),
        ("#### 18\n#### 18.0", "18", 1.0, "18"),
        ("#### 17 #### 18", "18", 0.0, ""),  # two answers
        ("#### 18\n#### none", "18", 1.0, "18"),
        ("#### 18\n#### 12,34", "18", 0.0, ""),
        ("#### Step one\n9 + 9\n\n#### 18", "18", 1.0, "18"),
        ("<think>#### 17</think>#### 18", "18", 1.0, "18"),
        ("<think>#### 18", "18", 0.0, ""),
        ("The answer is 18", "18", 0.0, ""),
        ("### 18", "18", 0.0, ""),
        ("", "18", 0.0, ""),
        ("####", "18", 0.0, ""),
        ("####\n18", "18", 0.0, ""),
        ("#### 12,34", "1234", 0.0, ""),
        ("#### 1,2345", "12345", 0.0, ""),
        ("#### 1234,567", "1234567", 0.0, ""),
        ("#### \u0661\u0668", "18", 0.0, ""),  # Arabic-Indic digits
    ],
)
def test_what_counts_as_the_answer(response, truth, score, pred):
    assert graded(response, truth) == (score, pred)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("#### 18", Reason.CORRECT),
        ("#### 17", Reason.WRONG),
        ("18", Reason.NO_ANSWER),
        ("#### eighteen", Reason.NO_ANSWER),
        ("#### 12,34", Reason.NO_ANSWER),
        ("#### 17\n#### 18", Reason.AMBIGUOUS),
        ("#### 12,34\n#### 18", Reason.AMBIGUOUS),
    ],
)
def test_reasons(response, reason):
    assert grade(response, "18").reason is reason


@pytest.mark.parametrize(
    "line",
    [
        *("18 dollars", "18 apples.", "$18", "$ 18", "\\$18", "18.00", "**18**", "\\boxed{18}", "18%", "(18)", "`18`"),
        *("18 cm", "18 cm^2", "18 m\u00b2", "18 km/h", "$18/hour", "18m", "18 kids", "18 - that is all", "Total - 18"),
        *("9 + 9 = 18", "9 \u00d7 2 = $18", "9+9=18 apples", "x = 18", "3*6 = 2*9 = 18", "1,2 and 3 give = 18"),
        *("<<9*2=18>>18", "9*2=<<9*2=18>>18", "18 times", "18 more than Bob", "In this case 18", "Her part: 18"),
    ],
)
def test_what_may_stand_around_the_number(line):
    assert graded(f"#### {line}") == (1.0, "18")


@pytest.mark.parametrize(
    "line",
    [
        *("minus 18", "Negative 18", "- 18", "\u221218", "\u2212 18", "\u201318", "- $18", "$ - 18", "-\\$18"),
        *("**-18**", "-**18**", "\\boxed{-18}", "2 - 20 = -18", "the answer is -18", "minus $18"),
    ],
)
def test_ways_to_write_a_minus(line):
    assert graded(f"#### {line}", "-18") == (1.0, "-18")


@pytest.mark.parametrize(
    "line",
    [
        *("18 + 5", "18 or 19", "18 to 20", "18-20", "18 of 20", "2 apples, 18 pears", "1 234", "18:30", "18 (9 + 9)"),
        *("18k", "18 K", "18M", "18 B", "18 bn", "18 million", "**18** thousand", "18\\text{ million}", "18 hundred"),
        *(
            "18 dozen",
            "18-dozen",
            "18 and a half",
            "18\u00bd",
            "18 Billion dollars",
            "18 thirds",
            "18 lakh",
            "18 crore",
        ),
        *("18!", "18 squared", "**18** cubed", "18 plus two", "18 minus two", "18 times two", "18 divided by two"),
        *("two times 18", "twice 18", "half 18", "half of 18", "two plus 18", "Twice $18", "not 18", "more than 18"),
        *(
            "18\u00d72",
            "18x2",
            "18 x 2",
            "18 \\times two",
            "18 +",
            "36/2",
            "36 / 2",
            "18^{2}",
            "18\u00b2",
            "18e5",
            "18 e5",
        ),
        *("\\frac{36}{2}", "\\frac18", "\\sqrt{18}", "\u221a18", "--18", "minus -18", "18 = 9 + 9", "x = 17, y = 18"),
    ],
)
def test_what_is_not_one_number_cannot_be_read(line):
    for truth in ("18", "-18", "1"):
        assert grade(f"#### {line}", truth) == Verdict(Reason.NO_ANSWER)
    assert grade(f"#### {line}\n#### 18", "18").reason is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    "heading",
    [
        *(
            "Step 2",
            "**Step 2:** total",
            "step 2 of 2",
            "Now step 2",
            "Part 2",
            "Case 2: both",
            "# Question 2",
            "Problem #2",
        ),
        *("2. Compute the total", "2) total money", "**2.** Add", "**2. Add them**", "10. Add"),
    ],
)
def test_a_heading_with_a_number_marks_no_answer(heading):
    truth = "10" if heading.startswith("10") else "2"
    assert grade(f"#### {heading}", truth).reason is Reason.NO_ANSWER
    assert grade(f"#### {heading}\n9*2=18\n\nThe answer is 18.", truth).reason is Reason.NO_ANSWER
    assert grade(f"#### Step 1: add\n9\n#### {heading}\n#### 18", "18").reason is Reason.CORRECT


@pytest.mark.parametrize("line", ["2.", "2)", "2. ", "180. That is all", "$2. That is all"])
def test_what_is_no_heading(line):
    assert grade(f"#### {line}", "180" if "180" in line else "2").reason is Reason.CORRECT


def test_numbers_are_compared_exactly():
    third = "0." + "3" * 40
    assert graded(f"#### {third}", third) == (1.0, third)
    assert graded(f"#### {third}4", third)[0] == 0.0
    assert graded("#### 9007199254740993", "9007199254740992")[0] == 0.0  # equal as floats


def test_a_number_may_have_so_many_digits_and_no_more():
    longest = "9" * MAX_DIGITS
    assert graded(f"#### {longest}", longest) == (1.0, longest)
    assert graded(f"#### {longest}9", longest) == (0.0, "")
    assert graded(f"#### 1.{longest}", "1") == (0.0, "")


@pytest.mark.parametrize(
    "unit", ["9", "123,", "-$", "$-", "#", "#### ", ".", "1.", ",", "minus ", "*", "=", "1=", "<<", "<<1>>", "step "]
)
def test_long_responses_are_graded_fast(unit):
    started = time.process_time()
    graded("#### " + unit * (1_000_000 // len(unit)))
    assert time.process_time() - started < 2


@given(st.text() | st.text("#$-\u2212,. \n=+*/kx0123456789", max_size=30).map("#### ".__add__))
@example("#### \ud800")
@example("\x00")
def test_no_response_raises(response):
    score, pred = graded(response)
    assert score in (0.0, 1.0)
    assert graded(f"#### {pred}") == (score, pred)  # `pred` stands for the answer


@given(st.decimals(-(10**20), 10**20, places=3), st.text("abc =\n"))
def test_every_way_of_writing_a_number_is_the_same_number(number, thoughts):
    for form in (f"{number:f}", f"{number:,f}", f"{number:f}000", f"${number:f}"):
        assert graded(f"{thoughts}#### {form}", f"{number:f}")[0] == 1.0
    assert graded(f"{thoughts}#### {number + 1:f}", f"{number:f}")[0] == 0.0


@pytest.mark.parametrize("truth", ["", "eighteen", "12,34"])
def test_a_ground_truth_that_is_no_number_is_an_error_in_the_data(truth):
    with pytest.raises(ValueError, match="ground truth"):
        compute_score("openai/gsm8k", "#### 18", truth)
