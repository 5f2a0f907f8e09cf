"""Text that a model might write to break a grader: 10,000 pieces, always the same ones."""

import random
from collections.abc import Iterator

MEGABYTE = 1_000_000
#: What would leave a trace if anything of it were executed; `{}` is a file that must not come to be.
PAYLOADS = (
    "__import__('os').system('touch {}')",
    "open('{}','w')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval(\"open('{}','w')\")",
    "exec(\"import os; os.environ['SPO_HOSTILE']='1'\")",
    "\\input{{|touch {}}}",
    "\\write18{{touch {}}}",
    "lambda: open('{}','w')",
    "x.__init__.__globals__",
    "$(touch {})",
    "`touch {}`",
    "{{{{open('{}','w')}}}}",
    "Symbol('x', __import__('os').system('touch {}'))",
    'f\'{{open("{}","w")}}\'',
)
_HEAVY = (
    "9**9**9",
    "9^{9^{9}}",
    "9^9^9^9",
    "x^{9^{9^9}}",
    "\\frac{1}{9^{9^{9}}}",
    "10^{10^{10}}!",
    "99999999!",
    "((99!)!)!",
    "\\binom{10^{9}}{10^{8}}",
    "\\sum_{n=1}^{10^{12}} n^n",
    "\\int_0^{\\infty} e^{-x^{x}} \\sin(x^{9}) dx",
    "\\prod_{k=1}^{99999999} k",
    "\\sqrt[999999999]{2^{999999999}}",
    "(x+y+z+1)^{9999}",
    "\\sin^{9999}(x+y) + \\cos^{9999}(x-y)",
    "\\lim_{x\\to 0} x^{x^{x^{x}}}",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{999999999}",
    "7^{7^{7^{7}}} \\mod 10",
    "1e999999999",
    "1E+999999999",
    "1E+99999",
    "2.5E-99999",
    "0.{}".format("3" * 900),
    "1" * 999,
    "\\log_{9^{9^9}} 9^{9^9}",
)
_FORMATS = ("%s%s%s%n", "{0.__class__}", "{}" * 50, "%(x)s", "${jndi:ldap://x}", "\\x00\\x1b[2J", "{0!r:>999999999}")
_PARTS = (
    *"0123456789+-*/^_=(){}[]\\,.;:!%$#&|<>~'\" \n\t\x00\x07\x1b\x7f\u2028\ud800\U0001f600\u0661",
    *("\\frac", "\\sqrt", "\\text{", "\\left(", "\\right]", "\\boxed{", "\\fbox", "####", "\n\n", "\\begin{matrix}"),
    *("\\end{matrix}", "\\pm", "\\cup", "\\in", "x", "y", "\\pi", "\\infty", "\\cdot", "\\{", "\\}", "\\\\", "<think>"),
    *("</think>", "The answer is", "\\dfrac12", "10{,}000", "\\%", "^\\circ", "and", "or", "\\le", "\\ne", "\\sin"),
)
_NESTED = (
    "{",
    "(",
    "[",
    "\\boxed{",
    "\\frac{",
    "\\sqrt{",
    "\\left(",
    "^{",
    "_{",
    "\\text{",
    "\\{",
    "-",
    "<think>",
    "####",
)
_CLOSE = {"{": "}", "(": ")", "[": "]", "\\{": "\\}", "\\left(": "\\right)"}


def strings(count: int = 10_000, trace: str = "/tmp/spo_hostile", seed: int = 0) -> Iterator[str]:
    """Makes responses: some long and deep ones, then mostly short ones that look like answers.

    Args:
        count: how many.
        trace: the file that an executed payload would make.
        seed: of the random ones.
    """
    rng = random.Random(seed)
    made = 0
    for text in _large():
        yield text
        made += 1
    while made < count:
        yield _small(rng, trace)
        made += 1


def _large() -> Iterator[str]:
    for opening in _NESTED:
        deep = opening * 100_000
        closing = (_CLOSE.get(opening) or ("}" if opening.endswith("{") else "")) * 100_000
        yield deep
        yield f"\\boxed{{{deep}1{closing}}}"
        yield f"#### {deep}1{closing}"
    for unit in (
        "a",
        "9",
        "\\",
        "}",
        "\\boxed{1}",
        "#### 1\n",
        "\n \n",
        " ",
        "\x00",
        "\ud800",
        "1,",
        "\\boxed",
        "$",
        "%s",
    ):
        text = unit * (MEGABYTE // len(unit))
        yield text
        yield f"\\boxed{{{text}}}"
        yield f"{text}\n\n\\boxed{{7}}"


def _small(rng: random.Random, trace: str) -> str:
    kind = rng.random()
    if kind < 0.1:
        inside = rng.choice(PAYLOADS).format(trace)
    elif kind < 0.13:
        inside = rng.choice(_HEAVY)
    elif kind < 0.18:
        inside = rng.choice(_FORMATS)
    elif kind < 0.3:
        opening = rng.choice(_NESTED)
        inside = opening * rng.randrange(1, 300) + rng.choice(("x", "1", "", "1,2")) + "}" * rng.randrange(300)
    else:
        inside = "".join(rng.choices(_PARTS, k=rng.randrange(1, 40)))
    mark = rng.random()
    if mark < 0.6:
        return f"So \\boxed{{{inside}}}."
    if mark < 0.7:
        return f"#### {inside}"
    if mark < 0.8:
        return f"\\boxed{{{inside}}} or \\boxed{{{''.join(rng.choices(_PARTS, k=5))}}}"
    return inside
