"""Whatever a model writes: a verdict in bounded time and memory, no exception, nothing executed."""

import os
import resource
import time

import pytest

from recipe.spo.rewards import gsm8k, math, point24
from recipe.spo.rewards.pool import shared_pool
from recipe.spo.rewards.verdict import Reason
from tests.unit.hostile import strings

GRADERS = {
    "gsm8k": lambda text: gsm8k.grade(text, "18"),
    "math": lambda text: math.grade(text, r"\frac{\sqrt{3}}{2}"),
    "minerva": lambda text: math.grade(text, r"\frac{\sqrt{3}}{2}", grader="minerva"),
    "point24": lambda text: point24.grade(text, '{"numbers": [1, 5, 5, 5]}'),
}


def graded_within(count: int, seed: int, trace, seconds: float = 5.0) -> dict[Reason, int]:
    """Grades hostile text with every grader, each verdict within the time; counts the verdicts."""
    environment = dict(os.environ)
    reasons = dict.fromkeys(Reason, 0)
    for name, grade in GRADERS.items():
        grade("warm up: \\boxed{x+1}")  # a process takes a second to start
        for text in strings(count, str(trace), seed):
            started = time.monotonic()
            verdict = grade(text)
            took = time.monotonic() - started
            assert took < seconds, f"{name} took {took:.1f} s for {text[:200]!r}"
            assert len(verdict.answer) < 5000
            reasons[verdict.reason] += 1
    assert not trace.exists()
    assert dict(os.environ) == environment
    return reasons


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_hostile_text(tmp_path):
    before = peak_megabytes()
    # The bound is loose here, as a busy machine makes any clock late; the slow test has the real one.
    reasons = graded_within(500, 1, tmp_path / "trace", seconds=20)
    assert peak_megabytes() - before < 300
    assert len(shared_pool().pids()) <= 2
    assert reasons[Reason.WRONG] > 50 and reasons[Reason.NO_ANSWER] > 50


@pytest.mark.slow
def test_ten_thousand_hostile_texts(tmp_path):
    before = peak_megabytes()
    graded_within(10_000, 0, tmp_path / "trace")
    assert peak_megabytes() - before < 300


@pytest.mark.parametrize("unit", ["{", "\\boxed{", "\\boxed{1} ", "\n\n", "####", "#### 1", "</think>", "a", "\\"])
@pytest.mark.parametrize("name", GRADERS)
def test_ten_times_the_text_takes_at_most_some_thirty_times_as_long(name, unit):
    """Linear, that is, where a quadratic rule would take a hundred times as long; the least of three."""

    def seconds(length: int) -> float:
        text, times = unit * (length // len(unit)), []
        for _ in range(3):
            started = time.process_time()
            GRADERS[name](text)
            times.append(time.process_time() - started)
        return min(times)

    assert seconds(300_000) < 30 * seconds(30_000) + 0.05
