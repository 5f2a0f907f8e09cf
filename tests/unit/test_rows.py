"""Selection and probability mask: which tokens train, with what advantage, and what is counted."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.advantage import Sample, tree_samples
from recipe.spo.metrics import selection_counts, step_metrics, tree_counts
from recipe.spo.rows import probability_mask, select_rows
from recipe.spo.tree import compute_values
from tests.builders import inner, leaf, root_of

LOG = [math.log(p) for p in (0.5, 0.95, 0.9, 0.3)]


def sample(advantage: float | list[float], probabilities: list[float], prefix=(7,)) -> Sample:
    n = len(probabilities)
    advantages = tuple(advantage) if isinstance(advantage, list) else (advantage,) * n
    return Sample((0,), prefix, tuple(range(10, 10 + n)), tuple(map(math.log, probabilities)), advantages, 0.5)


def counts_of(root):
    selection = select_rows([1], tree_samples(root), 0.9)
    return {**tree_counts(root, depth=2), **selection_counts(selection)}


def test_mask_is_strict():
    assert probability_mask(LOG, 0.9)[::3] == [1, 1] and probability_mask(LOG, 0.9)[1] == 0
    assert math.exp(math.log(0.5)) == 0.5  # so that the next line is about a token exactly at the threshold
    assert probability_mask([math.log(0.5)], 0.5) == [0]
    assert probability_mask([0.0, -1e-9], 1.0) == [0, 1]  # certain tokens never train under a mask


def test_no_mask_trains_everything():
    assert probability_mask(LOG, None) == [1, 1, 1, 1]


def test_a_row_is_context_tokens_mask_and_advantage():
    (row,) = select_rows([1, 2], [sample(0.25, [0.5, 0.95, 0.3])], 0.9).rows
    assert row.prompt_ids == [1, 2, 7]
    assert row.response_ids == [10, 11, 12]
    assert row.response_mask == [1, 0, 1]
    assert row.advantages == [0.25, 0.0, 0.25]
    assert row.score == 0.5


def test_zero_advantage_and_fully_masked_segments_are_dropped_and_counted():
    samples = [sample(0.0, [0.5]), sample(0.5, [0.95, 0.99]), sample(-0.5, [0.5])]
    selection = select_rows([1], samples, 0.9)
    assert [row.advantages for row in selection.rows] == [[-0.5]]
    assert (selection.zero_advantage, selection.all_masked) == (1, 1)


def test_a_prompt_where_all_is_right_leaves_no_row_and_is_counted():
    root = root_of(inner(leaf(1), leaf(1)), leaf(1))
    compute_values(root)
    counts = counts_of(root)
    assert counts["rows"] == 0
    assert (counts["questions_without_rows"], counts["dropped_zero_advantage"], counts["segments"]) == (1, 4, 4)


def test_counts_of_a_tree_worked_by_hand():
    root = root_of(inner(leaf(1), leaf(0)), leaf(1))  # segments of 1, 2, 2 and 2 tokens
    root.children[0].children[1].finished = False
    compute_values(root)
    counts = counts_of(root)
    assert counts["generated_tokens"] == 7
    assert (counts["trees"], counts["nodes_1"], counts["nodes_2"]) == (1, 2, 2)
    assert (counts["values_1"], counts["values_2"]) == (0.5 + 1, 1 + 0)
    assert counts["cut_points"] == 2  # one within each of the two responses that go through the inner node
    assert (counts["leaves"], counts["early_leaves"], counts["unfinished_leaves"]) == (3, 1, 1)
    # V() = (1/2 + 1) / 2 = 3/4; one token of each leaf and the inner node's only one are improbable.
    assert (counts["rows"], counts["trainable_tokens"], counts["root_value"]) == (4, 4, 0.75)
    assert counts["advantage_abs"] == 0.25 + 0.25 + 0.5 + 0.5
    assert counts["advantage_sum"] == -0.25 + 0.25 + 0.5 - 0.5
    assert counts["advantage_squares"] == 2 * 0.25**2 + 2 * 0.5**2


def test_step_metrics_are_shares_of_the_whole_step():
    def counts(**changes):
        root = root_of(leaf(1), leaf(0))
        compute_values(root)
        return {**counts_of(root), "prompt_tokens": 10, "cached_tokens": 4, "rollout_seconds": 1.0, **changes}

    metrics = step_metrics([counts(), counts(prompt_tokens=30, cached_tokens=26)], failed_questions=1)
    assert metrics["spo/questions"] == 2
    assert metrics["spo/failed_questions"] == 1
    assert metrics["spo/prefix_cache_hit_rate"] == 30 / 40
    assert metrics["spo/root_value"] == metrics["spo/value_at_depth_1"] == 0.5
    assert metrics["spo/advantage_std"] == 0.5  # of 0.5, -0.5, 0.5, -0.5
    assert metrics["spo/cut_points_per_response"] == 0
    assert metrics["spo/trees"] == 2


def test_a_step_without_trees_has_no_nan():
    assert step_metrics([], failed_questions=3) == {"spo/failed_questions": 3, "spo/questions": 0}


def test_a_row_of_several_segments_keeps_the_advantage_of_each_token():
    (row,) = select_rows([1], [sample([0.0, 0.5, 0.5, -1.0], [0.5, 0.5, 0.95, 0.5])], 0.9).rows
    assert row.response_mask == [1, 1, 0, 1]  # a trained token without credit still counts in Z
    assert row.advantages == [0.0, 0.5, 0.0, -1.0]


def test_a_row_whose_credit_the_mask_hides_is_counted_as_without_signal():
    selection = select_rows([1], [sample([0.0, 0.5], [0.5, 0.95])], 0.9)
    assert not selection.rows and (selection.zero_advantage, selection.all_masked) == (1, 0)


def test_keeping_rows_without_signal_keeps_those_with_a_trained_token():
    samples = [sample(0.0, [0.5]), sample(0.5, [0.95]), sample(0.0, [0.95])]
    selection = select_rows([1], samples, 0.9, keep_all=True)
    assert [row.response_mask for row in selection.rows] == [[1]]
    assert (selection.zero_advantage, selection.all_masked) == (1, 1)


@given(st.lists(st.floats(-20, 0), min_size=1), st.one_of(st.none(), st.floats(0.01, 1.0)))
def test_masked_tokens_carry_no_advantage(log_probs, threshold):
    n = len(log_probs)
    item = Sample((0,), (), tuple(range(n)), tuple(log_probs), (0.5,) * n, 1.0)
    selection = select_rows([1], [item], threshold)
    improbable = [threshold is None or math.exp(p) < threshold for p in log_probs]
    if not any(improbable):
        assert selection.all_masked == 1 and not selection.rows
    else:
        (row,) = selection.rows
        assert row.advantages == [0.5 if low else 0.0 for low in improbable]
        assert row.response_mask == [int(low) for low in improbable]
