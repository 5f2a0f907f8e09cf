"""Which rows train now: limits, ages, determinism, fairness, and nothing lost without being counted."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.replay import Candidate, age_counts, choose_rows
from recipe.spo.settings import ReplaySettings

NO_LIMITS = ReplaySettings(rows_per_step=None, rows_per_question=None, max_age=0)


def rows(question: str, number: int, born: int = 0) -> list[Candidate]:
    return [Candidate(born, question, f"{i:03d}", "", f"{born}/{question}/{i}") for i in range(number)]


def choose(candidates, step=0, seed=0, **settings):
    return choose_rows(candidates, step, replace(NO_LIMITS, **settings), seed)


# --- limits --------------------------------------------------------------------------------------


def test_without_limits_every_row_trains():
    everything = rows("a", 5) + rows("b", 3)
    choice = choose(everything)
    assert choice.taken == everything and not choice.kept and not choice.expired


def test_the_budget_of_a_step_is_spent_and_not_exceeded():
    choice = choose(rows("a", 50) + rows("b", 50), rows_per_step=30, max_age=1)
    assert (len(choice.taken), len(choice.kept)) == (30, 70)


def test_a_question_gives_at_most_its_limit():
    choice = choose(rows("a", 50) + rows("b", 3), rows_per_question=4, max_age=1)
    assert Counter(row.question for row in choice.taken) == {"a": 4, "b": 3}


def test_old_and_new_rows_share_the_limit_of_their_question():
    assert len(choose(rows("a", 9, born=2) + rows("a", 9, born=3), step=3, rows_per_question=4, max_age=9).taken) == 4


def test_the_limit_of_a_question_holds_before_the_budget():
    choice = choose(rows("a", 50) + rows("b", 50), rows_per_step=7, rows_per_question=4, max_age=1)
    taken = Counter(row.question for row in choice.taken)
    assert sum(taken.values()) == 7 and max(taken.values()) == 4


def test_fewer_rows_than_the_budget_are_not_repeated():
    assert choose(rows("a", 3), rows_per_step=100).taken == rows("a", 3)


def test_no_rows_no_choice():
    choice = choose([], rows_per_step=8)
    assert not choice.taken and not choice.kept and not choice.expired


# --- ages ----------------------------------------------------------------------------------------


def test_max_age_zero_drops_left_over_rows_at_once():
    choice = choose(rows("a", 10), rows_per_step=4)
    assert (len(choice.taken), len(choice.kept), len(choice.expired)) == (4, 0, 6)


@pytest.mark.parametrize(("step", "kept", "expired"), [(5, 6, 0), (6, 6, 0), (7, 0, 6)])
def test_a_row_may_wait_max_age_steps_and_train_in_the_last_of_them(step, kept, expired):
    choice = choose(rows("a", 10, born=5), step=step, rows_per_step=4, max_age=2)
    assert (len(choice.taken), len(choice.kept), len(choice.expired)) == (4, kept, expired)


def test_a_row_that_is_too_old_already_does_not_train():
    choice = choose(rows("a", 3, born=0) + rows("a", 3, born=1), step=3, max_age=2)
    assert choice.expired == rows("a", 3, born=0) and choice.taken == rows("a", 3, born=1)


def test_age_counts_are_steps_since_birth():
    assert age_counts(rows("a", 2, born=3) + rows("b", 1, born=3) + rows("a", 4, born=1), step=4) == {1: 3, 3: 4}


# --- every row somewhere, and always the same way ------------------------------------------------

limits = st.one_of(st.none(), st.integers(1, 12))
replay_settings = st.builds(ReplaySettings, limits, limits, st.integers(0, 4))
buffers = st.dictionaries(st.tuples(st.sampled_from("abcd"), st.integers(0, 6)), st.integers(1, 8), max_size=10).map(
    lambda sizes: [row for (question, born), n in sizes.items() for row in rows(question, n, born)]
)


@given(buffers, replay_settings, st.integers(0, 99))
def test_every_candidate_stands_in_exactly_one_list(candidates, settings, seed):
    choice = choose_rows(candidates, 6, settings, seed)
    assert sorted(choice.taken + choice.kept + choice.expired, key=str) == sorted(candidates, key=str)
    for part in (choice.taken, choice.kept, choice.expired):
        assert part == sorted(part)


@given(buffers, replay_settings, st.integers(0, 99))
def test_limits_and_ages_hold_whatever_the_rows(candidates, settings, seed):
    choice = choose_rows(candidates, 6, settings, seed)
    young = [row for row in candidates if 6 - row.born <= settings.max_age]
    cap, budget = settings.rows_per_question or 99, settings.rows_per_step or 99
    available = sum(min(n, cap) for n in Counter(row.question for row in young).values())
    assert len(choice.taken) == min(available, budget)  # as many as the limits allow
    assert all(n <= cap for n in Counter(row.question for row in choice.taken).values())
    assert all(6 - row.born <= settings.max_age for row in choice.taken)
    assert all(6 - row.born < settings.max_age for row in choice.kept)
    assert all(6 - row.born >= settings.max_age for row in choice.expired)


@given(buffers, replay_settings, st.randoms(use_true_random=False))
def test_order_and_keys_do_not_matter_only_what_the_rows_are(candidates, settings, rng):
    disguised = [replace(row, key=str(number)) for number, row in enumerate(candidates)]
    rng.shuffle(disguised)
    one, other = choose_rows(candidates, 6, settings, 1), choose_rows(disguised, 6, settings, 1)
    assert (one.taken, one.kept, one.expired) == (other.taken, other.kept, other.expired)  # keys do not compare


def test_the_global_random_state_is_neither_read_nor_changed():
    random.seed(1)
    before = random.getstate()
    first = choose(rows("a", 50), rows_per_step=10).taken
    assert random.getstate() == before
    random.seed(2)
    assert choose(rows("a", 50), rows_per_step=10).taken == first


def test_other_steps_and_other_seeds_choose_differently():
    choices = [choose(rows("a", 60), step, seed, rows_per_step=9, max_age=9) for step in range(4) for seed in range(4)]
    assert len({tuple(row.path for row in choice.taken) for choice in choices}) == 16


# --- fairness ------------------------------------------------------------------------------------


def frequencies(candidates: list[Candidate], trials: int, step: int = 0, **settings) -> list[int]:
    taken = Counter(row.key for seed in range(trials) for row in choose(candidates, step, seed, **settings).taken)
    return [taken[row.key] for row in candidates]


def chi_square(counts: list[int], trials: int, chance: float) -> float:
    """Of n rows of which always the same number is taken: n - 1 degrees of freedom."""
    n = len(counts)
    return sum((c - trials * chance) ** 2 for c in counts) / (trials * chance * (1 - chance)) * (n - 1) / n


def test_each_row_of_a_question_is_taken_equally_often():
    counts = frequencies(rows("a", 20), 2000, rows_per_question=4)
    assert sum(counts) == 2000 * 4
    assert 4 < chi_square(counts, 2000, 4 / 20) < 43.8  # 0.1 % above, at 19 degrees; as good as none below 4


def test_both_limits_choose_uniformly():
    # a: 4 of 20, b: 4 of 5; then 6 of these 8
    counts = frequencies(rows("a", 20) + rows("b", 5), 2000, rows_per_question=4, rows_per_step=6)
    for part, chance in [(counts[:20], 4 / 20 * 6 / 8), (counts[20:], 4 / 5 * 6 / 8)]:
        spread = (2000 * chance * (1 - chance)) ** 0.5
        assert all(abs(count - 2000 * chance) < 4 * spread for count in part)


def test_a_row_is_as_likely_to_train_when_it_has_waited():
    counts = frequencies(rows("a", 10, born=0) + rows("a", 10, born=1), 2000, step=1, rows_per_step=5, max_age=3)
    assert chi_square(counts, 2000, 5 / 20) < 43.8


# --- several steps -------------------------------------------------------------------------------


def new_rows(step: int, questions: int = 4) -> list[Candidate]:
    """As a run gives them: other questions each step, again after three; some of them give no row."""
    rng = random.Random(step)
    return [row for q in range(questions) for row in rows(f"{q}/{step % 3}", rng.choice([0, 3, 40, 60]), step)]


@pytest.mark.parametrize("max_age", [0, 1, 7])
def test_over_many_steps_no_row_trains_twice_or_is_lost_uncounted(max_age):
    waiting, taken, expired, born = [], Counter(), Counter(), 0
    for step in range(25):
        fresh = new_rows(step)
        born += len(fresh)
        choice = choose(waiting + fresh, step, rows_per_step=64, rows_per_question=32, max_age=max_age)
        taken.update(row.key for row in choice.taken)
        expired.update(row.key for row in choice.expired)
        waiting = choice.kept
        assert all(step - row.born < max_age for row in waiting)
    assert set(taken.values()) == set(expired.values()) == {1}
    assert not set(taken) & set(expired)
    assert len(taken) + len(expired) + len(waiting) == born


def published_step(buffer: list[Candidate], step: int, budget: int, rng: random.Random):
    """The authors' rule: rows aged 8 or more go; up to 32 a question leave the buffer; what exceeds the budget is lost.

    Returns (trained, lost although young enough, left in the buffer).
    """
    buffer = [row for row in buffer if step - row.born < 8]
    out: list[Candidate] = []
    for question in {row.question: None for row in buffer}:
        mine = [row for row in buffer if row.question == question]
        out += rng.sample(mine, min(32, len(mine)))
    gone = {row.key for row in out}
    rng.shuffle(out)
    return out[:budget], out[budget:], [row for row in buffer if row.key not in gone]


def test_unlike_the_published_rule_no_row_that_is_young_enough_is_lost():
    rng, theirs, ours = random.Random(0), [], []
    lost_by_theirs, trained_by_theirs, trained_by_ours = 0, 0, 0
    for step in range(20):
        fresh = new_rows(step)
        trained, lost, theirs = published_step(theirs + fresh, step, 40, rng)
        lost_by_theirs += len(lost)
        trained_by_theirs += len(trained)
        # Their "aged >= 8 goes" is our max_age = 7.
        choice = choose(ours + fresh, step, rows_per_step=40, rows_per_question=32, max_age=7)
        trained_by_ours += len(choice.taken)
        assert all(step - row.born == 7 for row in choice.expired)  # only those that have waited their time
        ours = choice.kept
    assert lost_by_theirs > trained_by_theirs / 2
    assert trained_by_ours >= trained_by_theirs
