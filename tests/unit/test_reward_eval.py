"""What sympy evaluates as Python on the way from an answer to a verdict: numbers and texts of its own.

math-verify's LaTeX route ends in `sympy.Number(text)` for number tokens, and that is Python's `eval`. This test
sees what is evaluated, so that another release of math-verify or sympy cannot widen it unnoticed.
"""

import json
import re
import subprocess
import sys

from sympy.physics.units.prefixes import BIN_PREFIXES, PREFIXES

from tests.conftest import REPOSITORY

#: Confined like a grader process, as it grades hostile text.
SCRIPT = r"""
import json, signal, sys
import sympy.parsing.sympy_parser as parser
from recipe.spo.rewards import worker
from recipe.spo.rewards.marked import boxes
from tests.unit.hostile import PAYLOADS, strings

seen, real = set(), parser.eval_expr
def spy(code, *names):
    seen.add(code)
    return real(code, *names)
parser.eval_expr = spy
signal.signal(signal.SIGPROF, worker._ring)
with open("tests/data/labelled_answers.jsonl", encoding="utf-8") as lines:
    pairs = [json.loads(line) for line in lines]
tasks = [(b.text, p["truth"]) for p in pairs if p["task"] == "math" for b in boxes(p["response"]) if b.text]
hostile = [b.text for text in strings(700, seed=3) if len(text) < 10_000 for b in boxes(text) if b.text]
# Also within what parses, so that they come as far as they can.
forms = ("{}", "1+{}", "\\frac{{1}}{{{}}}", "x_{{{}}}", "\\text{{{}}}2")
payloads = [form.format(text) for text in PAYLOADS for form in forms]
tasks += [(text, "\\frac{\\sqrt{3}}{2}") for text in hostile + payloads]
worker.answer({"grader": "math-verify", "predicted": ["x+1"], "gold": "1+x"}, 60)
worker.confine(1500)
for predicted, gold in tasks:
    worker.answer({"grader": "math-verify", "predicted": [predicted], "gold": gold}, 0.5)
json.dump({"tasks": len(tasks), "seen": sorted(seen)}, sys.stdout)
"""
UNITS = {
    name for prefix in (*PREFIXES.values(), *BIN_PREFIXES.values()) for name in (str(prefix.name), str(prefix.abbrev))
}
#: sqrt and the like stand in what mpmath writes for a number, in sympy's nsimplify.
NAMES = {"Integer", "Float", "Rational", "Symbol", "E", "pi", "sqrt", "exp", "log"}
NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+")


def harmless(code: str) -> bool:
    for token in re.findall(r"'[^']*'|[\w.]+|\S", code):
        if token.startswith("'"):
            known = NUMBER.fullmatch(token[1:-1]) or token[1:-1] in UNITS
        else:
            known = NUMBER.fullmatch(token) or token in NAMES or token in "()+-*/"
        if not known:
            return False
    return True


def test_only_numbers_and_texts_of_its_own_are_evaluated():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tasks"] > 500 and len(found["seen"]) > 50, "the spy sees nothing: sympy has changed"
    assert [code for code in found["seen"] if not harmless(code)] == []


def test_what_would_not_be_harmless():
    for code in (
        "Symbol ('x' )",
        "__import__ ('os' )",
        "Integer (1 ).__class__",
        "x ",
        "Function ('f' )(Integer (1 ))",
    ):
        assert not harmless(code)
    for code in (
        "Integer (18 )",
        "Float ('1.5E+5' )",
        "E ",
        "Symbol ('kilo' )",
        "((Integer (4 )+sqrt (Integer (48 ))))",
    ):
        assert harmless(code)
