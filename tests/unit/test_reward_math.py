"""The MATH grader: what is equal. What several boxes mean: `test_reward_boxes`."""

import re

import pytest

from recipe.spo.rewards import algebra
from recipe.spo.rewards.answers import read, vote
from recipe.spo.rewards.math import grade
from recipe.spo.rewards.verdict import Reason

EQUAL = r"""
(1,2)                       \left( 1, \, 2\right)
1,2                         2,1
1,2                         \{2,1\}
1,2                         x=1 \text{ or } x=2
x=1,y=2                     y=2,x=1
7, -2, \text{ and } -5      -5, -2, 7
1 \pm \sqrt{19}             1+\sqrt{19}, 1-\sqrt{19}
\{1\pm\sqrt{5},-2\}         -2,1+\sqrt5,1-\sqrt5
\frac{1}{3}                 0.333333
\frac13                     \dfrac{2}{6}
1\frac{1}{2}                1.5
-\frac{1}{2}                \frac{-1}{2}
.5                          0.50
10\%                        10
10                          10\%
0.1                         10\%
0.56 = 56\%                 56\%
x=5                         5
5                           x = 5
5                           2+3=5
f(x)=x+1                    x+1
y=2x+3                      y = 3 + 2x
x \in [-2,7]                [-2,7]
[-2,7]                      -2 \le x \le 7
(3,\infty)                  x>3
(-\infty,2)\cup(2,\infty)   (2,\infty) \cup (-\infty,2)
\text{Monday}               monday
\text{(A)}                  A
(\text{E})                  \text{E}
\text{June 20}              June 20
\text{A,B}                  B, A
10{,}000                    10,000
10,\!000                    10000
90^\circ                    90
90^{\circ}                  90 \text{ degrees}
5                           5\text{ cm}
5\text{ cm}^2               5 \text{ square centimeters}
\$5.00                      5 \text{ dollars}
20                          20 \text{ distinct integers}
12\sqrt{13}\text{ feet}     12\sqrt{13}
101_2                       101_{2}
101_2                       101_{\text{two}}
101_2                       101
05\!:\!00                   5:00
1.5 \times 10^6             1500000
(x+1)^2                     x^2+2x+1
2\sqrt{3}                   \sqrt{12}
2\sqrt{3}                   3.464102
\sqrt{2}/2                  \frac{1}{\sqrt2}
3+4i                        4i+3
6                           3!
6                           2(3)
6                           (2)(3)
6                           (2)(3)=6
10                          \binom{5}{2}
0.3\overline{6}             \frac{11}{30}
e^{i\pi}                    -1
11:30 \text{ a.m.}          \text{11:30 AM}
7                           \text{7 dollars}
2x+3y=6                     y = 2 - \frac{2x}{3}
y=x+1                       y-x=1
(-\infty,0)\cup(1,2]        x<0 \text{ or } 1<x\le 2
\mathbb{R}                  (-\infty,\infty)
\log_2 3                    \frac{\ln 3}{\ln 2}
\begin{pmatrix}1\\2\end{pmatrix}   \begin{bmatrix} 1 \\ 2 \end{bmatrix}
20\text{ degrees}           20^\circ
20                          20 \text{ degrees Celsius}
7\text{ integers}           7\text{ distinct integers}
12                          12 \text{ feet per second}
12\text{ m/s}               12 \text{ meters per second}
60\text{ mph}               60\text{ miles per hour}
10\text{ sq. units}         10
16                          2^{2^2}
16                          2^{2^{2}}
\frac12                     \sin 30^\circ
\frac12                     \sin(30^\circ)
\frac{3}{4}                 \cos 30^\circ \sin 60^{\circ}
5                           \frac{10}{2}=5
5                           x=2+3=5
55                          1+2+\cdots+10=55
A,B                         \text{A, B}
5                           8 \bmod 3 + 3=5
120                         5!=120
1000                        x=1,000
1000                        10^3=1,000
(3,4)                       (1,2)+(2,2)=(3,4)
5000000                     5\text{ million}
5\text{ million dollars}    \$5{,}000{,}000
0                           0.000000
\int_0^1 f(x) \, dx         \int_0^1 f(x) dx
\sum_{k=1}^n k              \sum_{k=1}^{n} k
(5,6)                       (x,y)=(5,6)
(x,y)=(5,6)                 (5,6)
(x,y)=(5,6)                 x=5, y=6
(x,y)=(5,6)                 (y,x)=(6,5)
(x,y,z)=(1,2,3)             (z, x, y)=(3,1,2)
(3,\frac{\pi}{2})           (r,\theta)=\left(3, \frac{\pi}{2}\right)
(1,2,3)                     (x, y, z) = (1,2,3)
(1,2,3)                     (x_1, x_2, x_3) = (1,2,3)
(1,2),(3,4)                 (x,y)=(1,2) \text{ or } (x,y)=(3,4)
x-1                         f^{-1}(x)=x-1
x+y                         f(x,y)=x+y
5                           |AB|=5
5                           \lvert AB\rvert = 5
5                           [ABC]=5
5                           5\ .
3                           3 \pmod{7}
3                           x \equiv 3 \pmod 7
3 \pmod{7}                  3\text{ (mod 7)}
3 \pmod{7}                  3 \ (\bmod\ 7)
3                           3 (\text{mod } 7)
3                           3 (mod 7)
3,5                         x \equiv 3, 5 \pmod{8}
120                         10 \choose 3
240                         2{10 \choose 3}
240                         2\binom{10}{3}
3                           \binom{4}{2}\frac{1}{2}
36                          \binom{4}{2}\binom{4}{2}
100000                      1E+5
"""
UNEQUAL = r"""
(1,2)                       [1,2]
(1,2)                       (2,1)
(2,1)                       (3,1)
(1,2)                       1,2
1,2                         1
1                           1,2
x=1,y=2                     x=2,y=1
\frac{1}{3}                 0.33
\frac{2}{3}                 0.666666
\frac{11}{2}                1\frac{1}{2}
\pi                         3.14
8\pi                        25.13
0.1                         10
10                          0.1
x                           y
x=5                         y=5
5                           2x=10
x=5                         2x=5
x=5                         2x=10
2x+3y=6                     2x+3y=7
3                           --3
3                           \text{3 and 4}
5t                          5
5                           5t
5                           2(3)
5                           (2)(3)
y=2x+3                      x=2y+3
[3,\infty)                  x>3
p - q                       q - p
3+4i                        4+3i
5\text{ m}                  5\text{ cm}
5\text{ cm}^2               5\text{ cm}
\$5                         5 \text{ cents}
4\text{ p.m.}               4 \text{ a.m.}
101_2                       101_3
101_2                       5
101                         101_2
129_8                       129
1:2                         \frac12
LQSX                        LQXS
\text{Monday}               Tuesday
\text{A, B, C}              A, B
\text{red, green, blue}     \text{blue, green, red}
1.5\times10^{-7}            2.5\times10^{-7}
10^{-7}x                    10^{-8}x
\begin{pmatrix}1\\2\end{pmatrix}   \begin{pmatrix} 1 & 2 \end{pmatrix}
\frac{1}{7}\triangle ABC    \frac17
\frac{\sqrt{3}}{2}          \frac{1}{0}
5                           \infty
5                           the answer is 5
5                           5\text{ million}
5                           \text{5 million}
5                           5\text{ dozen eggs}
5                           5\text{ cm or 6 cm}
5                           5\text{ or more}
5                           5\text{ to }6
2                           2\text{ and a half}
2                           2\text{ halves}
2                           2\text{ of the three children}
5\text{ apples}             5\text{ pears}
5\text{ m}                  5\text{ pears}
12\text{ m/s}               12\text{ km/h}
A,B                         AB
\text{A, B}                 AB
(A,B)                       AB
5                           2=5
5                           2+2=5
5                           x=2+2=5
5                           2+2=4=5
6.28                        2\pi=6.28
5                           \frac{1}{2}=5
10^{-9}                     0.000000
10^{-9}\sqrt{2}             0.000000
0.000000001                 0.000000
\frac13                     \int_0^1 x^2 \, dx
2                           \lim_{x\to 1} 2x
6                           \sum_{k=1}^{3} k
\sum_{k=1}^n k              \sum_{k=1}^{n} (k+1)
16                          2^{2^3}
\frac12                     \sin 60^\circ
1                           \sin 30^\circ
(5,6)                       (x,y)=(6,5)
(x,y)=(5,6)                 (6,5)
(x,y)=(5,6)                 (a,b)=(5,6)
(x,y)=(5,6)                 (y,x)=(5,6)
(x,x)=(5,6)                 (x,y)=(5,6)
(5,6)                       (x,y)=[5,6]
f^{-1}(x)=x-1               f(x)=x-1
[ABC]=5                     [ABD]=5
5                           |x|=5
3 \pmod{7}                  3 \pmod{5}
3                           4 \pmod{7}
122                         2\binom{10}{3}
5                           1E+99999
5                           1E+999999999
"""


def rows(table: str) -> list[tuple[str, str]]:
    return [tuple(re.split(r" {2,}", line.strip(), maxsplit=1)) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("truth", "answer"), rows(EQUAL))
def test_equal(truth, answer):
    assert grade(f"so it is $\\boxed{{{answer}}}$.", truth).reason is Reason.CORRECT


@pytest.mark.parametrize(("truth", "answer"), rows(UNEQUAL))
def test_unequal(truth, answer):
    assert grade(f"so it is $\\boxed{{{answer}}}$.", truth).reason is Reason.WRONG


@pytest.mark.parametrize("huge", ["1E+99999", "1E+999999999", "1e-99999", "2.5e99999", "3.E9999"])
def test_a_huge_exponent_does_not_reach_the_parser(huge):
    assert algebra.parsed(huge) is None


@pytest.mark.parametrize("answer", ["5\\ ", "5\\ \\ ", "5.\\ "])
def test_spacing_at_the_end(answer):
    assert grade(f"\\boxed{{{answer}}}", "5").reason is Reason.CORRECT


def test_what_only_looks_like_a_plus_minus():
    assert [part.text for part in read(r"3 \pm 1").parts] == ["3+1", "3-1"]
    assert read(r"3 \pmod{7}").kind == "one"


def test_equal_answers_vote_alike():
    for forms in (
        [r"\frac12", "0.5", ".50", r"\dfrac{1}{2}", r"\frac{2}{4}", "x = 0.5"],
        ["1,2", r"\{2, 1\}", r"2 \text{ and } 1"],
        ["(1, 2)", r"\left(1,2\right)"],
        [r"\text{(A)}", "A", r"\text{A}"],
        ["10{,}000", "10000", r"\$10,000"],
    ):
        assert len({vote(read(form)) for form in forms}) == 1, forms
    assert len({vote(read(form)) for form in ("(1,2)", "(2,1)", "[1,2]", "1,2")}) == 4
    assert grade(r"\boxed{\frac{2}{4}}", "3").answer == "1/2"


@pytest.mark.parametrize("truth", ["", "  "])
def test_an_empty_truth_is_an_error_in_the_data(truth):
    with pytest.raises(ValueError, match="prepare the data again"):
        grade(r"\boxed{5}", truth)


def test_an_unknown_grader():
    with pytest.raises(ValueError, match="math-verify, minerva"):
        grade(r"\boxed{5}", "5", grader="llm")
