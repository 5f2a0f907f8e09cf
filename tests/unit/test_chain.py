"""Chains: values and credit of cuts, their counts, and the partitions by name. Sampling: `test_grow_chain`."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.advantage import chain_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.credit import UnknownRule
from recipe.spo.cutting import chain_partition
from recipe.spo.metrics import chain_counts, step_metrics
from recipe.spo.settings import ChainSettings
from recipe.spo.tree import Node


def response(ids, reward: float | None = None, probabilities=None, finished: bool = True) -> Node:
    log_probs = [math.log(p) for p in probabilities or [0.5] * len(ids)]
    return Node(list(ids), log_probs, finished=finished, reward=reward)


def worth(*rewards: float | None) -> list[Node]:
    """Continuations of one token each."""
    return [response([50], reward) for reward in rewards]


def chain(*trajectories: tuple[Node, list[int]], **values: list[Node]) -> ChainRollout:
    """`c3=worth(1, 0)` values the state after the first three tokens of the first response."""
    first = trajectories[0][0].token_ids
    states = {tuple(first[: int(name[1:])]): samples for name, samples in values.items()}
    return ChainRollout([Trajectory(*trajectory) for trajectory in trajectories], states)


# --- values and credit ---------------------------------------------------------------------------


def test_value_of_a_cut_is_the_mean_reward_of_its_continuations():
    rollout = chain((response([1, 2, 3], 1), [0, 2]), c0=worth(1, 0, 0, 0.5), c2=worth(1))
    assert rollout.values() == {(): 0.375, (1, 2): 1.0}  # the response's own reward is in neither


def test_endings_are_whole_responses_of_trajectories_and_continuations():
    rollout = chain((response([1, 2, 3]), [0, 2]), c0=worth(None, None), c2=worth(None))
    assert [ids for ids, _ in rollout.endings()] == [(1, 2, 3), (50,), (50,), (1, 2, 50)]


def test_rewards_written_to_the_endings_make_the_values():
    rollout = chain((response([1, 2, 3]), [0, 2]), c0=worth(None, None), c2=worth(None))
    for ids, node in rollout.endings():
        node.reward = float(len(ids))
    assert rollout.values() == {(): 1.0, (1, 2): 3.0} and rollout.trajectories[0].response.reward == 3.0


@pytest.mark.parametrize(("samples", "complaint"), [([], "no continuation"), (worth(1, None), "has no reward")])
def test_a_cut_that_cannot_be_valued_is_refused(samples, complaint):
    with pytest.raises(ValueError, match=f"after 2 response tokens.*{complaint}|{complaint}.*after 2 response tokens"):
        chain((response([1, 2, 3], 1), [2]), c2=samples).values()


def test_advantages_worked_by_hand():
    # p = .5 .95 .99 .3 .95 .2 .99 .8 cut at every 2nd token below .9: 0 and 5. V = .4 and .7, R = 1.
    whole = response(range(1, 9), 1.0)
    (sample,) = chain_samples(chain((whole, [0, 5]), c0=worth(1, 1, 0, 0, 0), c5=worth(*[1] * 7, 0, 0, 0)))
    assert sample.advantages == pytest.approx([0.3] * 5 + [0.3] * 3)
    assert (sample.path, sample.prefix_ids, sample.token_ids) == ((0,), (), tuple(range(1, 9)))
    assert (sample.log_probs, sample.score) == (tuple(whole.log_probs), 1.0)


def test_tokens_before_the_first_cut_have_no_credit():
    (sample,) = chain_samples(chain((response(range(1, 6), 0.0), [2]), c2=worth(1, 0)))
    assert sample.advantages == (0.0, 0.0, -0.5, -0.5, -0.5)


def test_a_response_without_cuts_has_no_credit_whatever_its_reward():
    (sample,) = chain_samples(chain((response([1, 2], 1.0), [])))
    assert sample.advantages == (0.0, 0.0) and sample.score == 1.0


def test_responses_share_the_value_of_a_state_they_share():
    first, second = response([1, 2], 1.0), response([3, 4], 0.0)
    samples = chain_samples(chain((first, [0]), (second, [0]), c0=worth(1, 1, 1, 0)))
    assert [(s.path, s.advantages) for s in samples] == [((0,), (0.25, 0.25)), ((1,), (-0.75, -0.75))]


def test_equal_values_give_exact_zeros():
    tenths = worth(0.1, 0.1, 0.1)  # whose mean is not 0.1 in floating point
    (sample,) = chain_samples(chain((response([1, 2, 3], 0.1), [0, 1]), c0=tenths, c1=worth(0.1)))
    assert sample.advantages == (0.0, 0.0, 0.0)


def test_an_ungraded_response_is_refused():
    with pytest.raises(ValueError, match="response 0 has no reward"):
        list(chain_samples(chain((response([1, 2]), [0]), c0=worth(1))))


def test_a_rule_must_give_one_advantage_a_segment():
    with pytest.raises(ValueError, match="1 advantages for 2 segments"):
        rollout = chain((response([1, 2], 1.0), [0, 1]), c0=worth(1), c1=worth(1))
        list(chain_samples(rollout, lambda values, reward: [0.5]))


@given(st.data())
def test_segments_advantages_telescope_to_the_reward_less_the_first_value(data):
    n = data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    rewards = st.integers(0, 4).map(lambda k: k / 4)
    values = {f"c{cut}": worth(*data.draw(st.lists(rewards, min_size=1, max_size=3))) for cut in cuts}
    rollout = chain((response(range(1, n + 1), data.draw(rewards)), cuts), **values)
    (sample,) = chain_samples(rollout)
    first = rollout.values()[tuple(range(1, cuts[0] + 1))]
    assert sum(sample.advantages[cut] for cut in cuts) == pytest.approx(sample.score - first, abs=1e-8)
    assert all(sample.advantages[i] == sample.advantages[i - 1] for i in range(1, n) if i not in cuts)


# --- counts --------------------------------------------------------------------------------------


def test_counts_worked_by_hand():
    first, second = response([1, 2, 3, 4], 1.0), response([1, 2, 5], 0.0, finished=False)
    rollout = chain((first, [0, 2]), (second, [0, 2]), c0=worth(1, 0, 1), c2=[response([6, 7], 1.0)] * 3)
    assert chain_counts(rollout) == {
        "root_value": 0.5,  # of the responses, not of the prompt's continuations
        "generated_tokens": 4 + 3 + 3 * 1 + 3 * 2,
        "continuation_tokens": 3 * 1 + 3 * 2,
        "segments": 4,
        "states": 2,
        "state_values": 2 / 3 + 1,
        "continuations": 6,
        "cut_points": 2,  # not the ones at 0, which are the prompt
        "leaves": 2,
        "early_leaves": 0,
        "unfinished_leaves": 1,
        "leaf_reward": 1.0,
    }


def test_verdicts_are_counted_where_the_grader_gives_one():
    responses = [response([1, 2], 1.0), response([3], 0.0), response([4], 0.0), response([5], 0.0)]
    for each, verdict in zip(responses, ("correct", "wrong", "of my own", ""), strict=True):
        each.verdict = verdict
    counts = chain_counts(chain(*((each, []) for each in responses)))
    assert {name: n for name, n in counts.items() if name.startswith("verdict")} == {
        "verdict_correct": 1,
        "verdict_wrong": 1,
        "verdict_other": 1,
    }
    selection = {"questions": 1, "samples": 4, "rows": 4, "dropped_zero_advantage": 0, "trainable_tokens": 1}
    selection |= {"row_tokens": 1, "advantage_abs": 1, "advantage_sum": 1, "advantage_squares": 1}
    worker = {"prompt_tokens": 1, "cached_tokens": 0, "rollout_seconds": 1}
    metrics = step_metrics([counts | selection | worker], 0)
    shares = {name.split("/")[2]: share for name, share in metrics.items() if name.startswith("spo/verdict/")}
    assert shares == {
        "correct_share": 0.25,
        "wrong_share": 0.25,
        "other_share": 0.25,
        "no_answer_share": 0.0,
        "unfinished_share": 0.0,
        "ambiguous_share": 0.0,
        "timeout_share": 0.0,
    }


# --- partitions by name --------------------------------------------------------------------------

WORDS = ["", "Two", " pens", ".", " They", " cost", " $3", ".\n", "So", " 6", ".", "\n", "#### 6"]
SENTENCES = response(range(1, 13), probabilities=[0.5, 0.99, 0.9, 0.3, 0.95, 0.2, 0.99, 0.8, 0.1, 0.99, 0.99, 0.99])


def decode(ids) -> str:
    return "".join(WORDS[i] for i in ids)


def cut_at_as_many_tokens_as_letters(response: Node, decode) -> list[int]:
    return [len(decode(response.token_ids[:3]))]  # "Two pens."


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        ({"partition": "low_probability", "cut_interval": 1}, [0, 3, 5, 7, 8]),  # 0.9 itself is not improbable
        ({"partition": "low_probability", "cut_interval": 2}, [0, 5, 8]),
        ({"partition": "fixed_length", "segment_length": 5}, [0, 5, 10]),
        ({"partition": "equal_parts", "parts": 5}, [0, 3, 6, 8, 10]),
        ({"partition": "lines"}, [0, 7]),  # the answer belongs to the last line
        ({"partition": "sentences"}, [0, 3, 7, 11]),
        ({"partition": "sentences", "max_steps": 2}, [0, 3]),
        ({"partition": f"{__name__}:cut_at_as_many_tokens_as_letters"}, [9]),
    ],
    ids=lambda value: value["partition"] if isinstance(value, dict) else None,
)
def test_a_partition_cuts_as_its_name_says(shape, cuts):
    assert chain_partition(ChainSettings(1, 1, **shape), 0.9, decode)(SENTENCES) == cuts


def test_the_cut_threshold_is_the_one_given():
    shape = ChainSettings(1, 1, "low_probability", cut_interval=1)
    assert chain_partition(shape, 0.25, decode)(SENTENCES) == [5, 8]


def test_an_unknown_partition_is_refused_before_sampling():
    with pytest.raises(UnknownRule, match="low_probability, fixed_length, equal_parts, lines, sentences"):
        chain_partition(ChainSettings(1, 1, "paragraphs"), 0.9, decode)
