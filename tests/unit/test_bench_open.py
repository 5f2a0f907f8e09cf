"""What is still open of the reward, by position, against closed forms."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from recipe.spo.bench.intervals import draws
from recipe.spo.bench.open_variance import by_position, open_sums
from recipe.spo.bench.tables import grids, markdown
from recipe.spo.bench.truth import Reference
from recipe.spo.tree import Node
from tests.unit.bench_runs import all_methods, bench
from tests.unit.chain_policy import true_value
from tests.unit.test_markov import EOS, LENGTH, POLICY, PROMPT, worth


def reference(tokens: int, sampled: tuple[int, ...], errors: tuple[float, ...]) -> Reference:
    node = Node([5] * tokens, [-1.0] * tokens, True, reward=1.0)
    return Reference(node, sampled, (0.5,) * len(sampled), errors, 10)


def test_by_hand():
    """Variances of 0.25 at the prompt, 0.1 after 4 tokens, 0 once it has ended; another of 0.2 that ends after 3."""
    long, short = reference(8, (0, 4), (0.025, 0.01)), reference(3, (0,), (0.02,))
    found = open_sums([long, short], [0, 3, 4, 8])
    expected = [[2, 2, 0.45, 0.45], [2, 1, 0.25, 0.45], [2, 1, 0.1, 0.45], [2, 0, 0.0, 0.45]]
    assert found == pytest.approx(np.array(expected))


def expected_open(position: int) -> tuple[float, float]:
    """Chance to go on for more than so many tokens, and E V (1 - V) over the states then."""
    met = {PROMPT: 1.0}
    for _ in range(position):
        after: dict[int, float] = {}
        for last, chance in met.items():
            for token, p in POLICY[last].items():
                if token != EOS:
                    after[token] = after.get(token, 0.0) + chance * p
        met = after
    left = LENGTH - position
    return sum(met.values()), sum(c * worth(last, left) * (1 - worth(last, left)) for last, c in met.items())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    run = bench(tmp_path_factory.mktemp("bench"), all_methods()[:2])
    run.run()
    return [question.references for question in run.measured()]


def test_it_is_what_the_policy_leaves_open(measured):
    """Against the exact expectation within three standard errors, and close to the exact variance of these states."""
    rows = by_position(measured, 2, draws(len(measured), 500, 0))
    assert [row["after_tokens"] for row in rows] == [0, 2, 4, 6, 8]
    references = [each for question in measured for each in question]
    for row in rows[:4]:
        position, (going, open_) = row["after_tokens"], expected_open(row["after_tokens"])
        for name, exact in (("going_on", going), ("open", open_)):
            found = row[name]
            error = (found["high"] - found["low"]) / 3.92
            assert abs(found["value"] - exact) <= 3 * error + 1e-12, (position, name, found, exact)
        values = [true_value(each.node.token_ids[:position]) for each in references if position < each.tokens]
        here = sum(v * (1 - v) for v in values) / len(references)
        assert row["open"]["value"] == pytest.approx(here, abs=0.01)
    assert rows[0]["open_share"]["value"] == 1
    shares = [row["open_share"]["value"] for row in rows]
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.2


def test_total_variance(measured):
    """What is open and what is decided add up to the variance of the reward at the prompt."""
    references = [each for question in measured for each in question]
    position, root = 3, worth(PROMPT, LENGTH)
    (row,) = by_position(measured, position, draws(len(measured), 100, 0))[1:2]
    values = [true_value(each.node.token_ids[:position]) for each in references]
    assert row["open"]["value"] + statistics.pvariance(values, root) == pytest.approx(root * (1 - root), abs=0.02)


def test_the_table_has_every_position(measured):
    rows = by_position(measured, 4, draws(len(measured), 100, 0))
    result = {"open": rows, "truth": {"sibling_pairs": 0}, "methods": [], "families": {"tokens": 1, "rows": []}}
    text = markdown(grids(result)[0])
    assert text.count("\n| ") == 2 + len(rows)
    assert "\n| 0 | 1.00" in text and "| 1.00 [1.00, 1.00] |" in text
