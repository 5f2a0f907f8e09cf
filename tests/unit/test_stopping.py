"""Segments of a tree that end by a rule: the rules, the tail that becomes the first child, budgets and contexts."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.cutting import tree_stop
from recipe.spo.rollout.sampler import Sampler, SamplingError
from recipe.spo.rollout.tree import grow_tree, sample_segment
from recipe.spo.settings import TreeSettings
from recipe.spo.stopping import after_improbable_tokens, after_line, at_full_length
from recipe.spo.tree import Node, walk
from tests.unit.test_grow_tree import PROMPT, ScriptedClient

LOW, HIGH = math.log(0.3), math.log(0.95)


def logs(pattern: str) -> list[float]:
    """`x` is an improbable token, any other character a probable one."""
    return [LOW if sign == "x" else HIGH for sign in pattern]


# --- the rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "interval", "end"),
    [("..x.x", 1, 3), ("..x.x", 2, 5), ("x....", 1, 1), ("xx...", 2, 2), ("..x..", 2, None), (".....", 1, None)],
)
def test_a_segment_ends_right_after_its_kth_improbable_token(pattern, interval, end):
    assert after_improbable_tokens(0.9, interval)(range(5), logs(pattern)) == end


def test_the_threshold_is_strict():
    assert math.exp(math.log(0.5)) == 0.5  # so that the next line is about a token exactly at it
    assert after_improbable_tokens(0.5, 1)([1, 2], [math.log(0.5), math.log(0.49)]) == 2


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="interval is 0"):
        after_improbable_tokens(0.9, 0)


@pytest.mark.parametrize(("ids", "end"), [([5, 6, 10, 5], 3), ([10], 1), ([5, 6], None), ([10, 10], 1)])
def test_a_segment_ends_right_after_the_first_token_that_ends_a_line(ids, end):
    assert after_line(lambda token: token == 10)(ids, [HIGH] * len(ids)) == end


RULES = [at_full_length, after_improbable_tokens(0.9, 1), after_improbable_tokens(0.9, 3), after_line(lambda t: t < 3)]
sampled = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([LOW, HIGH])), min_size=1, max_size=30)


@pytest.mark.parametrize("rule", RULES)
@given(tokens=sampled)
def test_a_rule_does_not_change_its_mind_nor_look_ahead(rule, tokens):
    ids, log_probs = map(list, zip(*tokens, strict=True))
    end = rule(ids, log_probs)
    for length in range(1, len(ids) + 1):
        expected = None if end is None or length < end else end
        assert rule(ids[:length], log_probs[:length]) == expected


@pytest.mark.parametrize(
    ("shape", "ids", "end"),
    [
        (TreeSettings((2, 2), 9), [1, 2, 3, 4], None),
        (TreeSettings((2, 2), 9, "low_probability", cut_interval=2), [1, 2, 3, 4], 3),
        (TreeSettings((2, 2), 9, "lines"), [1, 2, 3, 4], 2),
    ],
    ids=["fixed_length", "low_probability", "lines"],
)
def test_a_tree_stops_as_its_partition_says(shape, ids, end):
    texts = {1: "a", 2: ".\n", 3: "b", 4: "\n\n"}
    assert tree_stop(shape, 0.9, lambda tokens: "".join(texts[t] for t in tokens))(ids, logs("x.xx")) == end


# --- one segment ---------------------------------------------------------------------------------

EOS = 99


class Answers:
    """Gives prepared answers, one after the other, and records what was asked for."""

    def __init__(self, *answers: tuple[list[int], str]):
        self.answers = list(answers)
        self.asked: list[tuple[list[int], int]] = []

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        self.asked.append((prompt_ids, sampling_params["max_tokens"]))
        ids, pattern = self.answers.pop(0)
        return SimpleNamespace(token_ids=ids, log_probs=logs(pattern), stop_reason="completed", extra_fields={})


def segment(budget: int, rule, *answers: tuple[list[int], str], begun: tuple[list[int], str, bool] | None = None):
    client = Answers(*answers)
    sampler = Sampler(client, "tree", {}, frozenset({EOS}))
    draft = Node(begun[0], logs(begun[1]), begun[2]) if begun else None
    return (*asyncio.run(sample_segment(sampler, (91, 92), budget, rule, (0,), draft)), client.asked)


AFTER_ONE, AFTER_TWO = after_improbable_tokens(0.9, 1), after_improbable_tokens(0.9, 2)


def test_what_was_sampled_beyond_the_end_is_the_rest():
    child, rest, asked = segment(6, AFTER_ONE, ([1, 2, 3, 4, 5, 6], ".x.x.."))
    assert (child, rest) == (Node([1, 2], logs(".x")), Node([3, 4, 5, 6], logs(".x..")))
    assert asked == [([91, 92], 6)]


def test_a_segment_that_ends_with_its_last_token_leaves_no_rest():
    child, rest, _ = segment(3, AFTER_ONE, ([1, 2, 3], "..x"))
    assert child == Node([1, 2, 3], logs("..x")) and rest is None


def test_only_the_missing_tokens_are_asked_for():
    child, rest, asked = segment(5, AFTER_TWO, ([3, 4, 5], ".x."), begun=([1, 2], "x.", False))
    assert asked == [([91, 92, 1, 2], 3)]
    assert child == Node([1, 2, 3, 4], logs("x..x")) and rest == Node([5], logs("."))  # counts from the beginning


def test_a_rest_that_holds_the_end_of_the_segment_asks_for_nothing():
    child, rest, asked = segment(5, AFTER_ONE, begun=([1, 2, 3], ".x.", False))
    assert not asked
    assert (child, rest) == (Node([1, 2], logs(".x")), Node([3], logs(".")))


def test_a_rest_that_holds_the_end_of_the_response_is_a_finished_segment():
    child, rest, asked = segment(5, AFTER_ONE, begun=([1, EOS], "..", True))
    assert not asked and rest is None
    assert child == Node([1, EOS], logs(".."), finished=True)


def test_the_end_of_the_response_stays_with_the_rest_where_the_segment_ends_before_it():
    child, rest, _ = segment(5, AFTER_ONE, ([1, 2, EOS], "x.."))
    assert not child.finished and rest == Node([2, EOS], logs(".."), finished=True)


def test_an_improbable_end_of_the_response_finishes_the_segment():
    child, rest, _ = segment(5, AFTER_ONE, ([1, EOS], ".x"))
    assert child.finished and rest is None


def test_a_rest_longer_than_the_budget_is_cut_there():
    child, rest, asked = segment(2, AFTER_ONE, begun=([1, 2, 3, EOS], "..x.", True))
    assert not asked
    assert (child, rest) == (Node([1, 2], logs("..")), Node([3, EOS], logs("x."), finished=True))


def test_a_rest_as_long_as_the_budget_is_a_full_segment():
    child, rest, asked = segment(2, AFTER_ONE, begun=([1, 2], "..", False))
    assert not asked and rest is None and child == Node([1, 2], logs(".."))


def test_a_rest_without_the_rule_runs_on_to_its_budget():
    child, rest, asked = segment(4, at_full_length, ([3, 4], "xx"), begun=([1, 2], "xx", False))
    assert asked == [([91, 92, 1, 2], 2)]
    assert child == Node([1, 2, 3, 4], logs("xxxx")) and rest is None


# --- trees ---------------------------------------------------------------------------------------

ENDS = 10**6  # tokens from here on end a response


class Numbered(ScriptedClient):
    """Every sampled token is another number, so that it can be found again; a third is improbable."""

    def __init__(self, seed: int, eos_probability: float):
        super().__init__(eos_probability, seed)
        self.log_prob_of: dict[int, float] = {}
        self.answers: list[tuple[SimpleNamespace, list[int]]] = []

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
        first = len(self.log_prob_of) + 1
        output.token_ids = [first + i + (0 if token else ENDS) for i, token in enumerate(output.token_ids)]
        output.log_probs = [self.random.choice([LOW, HIGH, HIGH]) for _ in output.token_ids]
        self.log_prob_of.update(zip(output.token_ids, output.log_probs, strict=True))
        self.answers.append((SimpleNamespace(asked=prompt_ids, params=sampling_params), output.token_ids))
        return output


SHAPES = [  # shape, response length, end-of-response probability, improbable tokens a segment
    (TreeSettings((3, 3, 2), 6), 24, 0.04, 1),
    (TreeSettings((2, 2, 2), (9, 3)), 14, 0.02, 2),  # a rest may be longer than the next level's budget
    (TreeSettings((2, 1, 2, 2), 5), 16, 0.0, 3),
    (TreeSettings((2, 3), 20), 21, 0.1, 1),
]


@pytest.fixture(scope="module", params=[(case, seed) for case in range(len(SHAPES)) for seed in range(3)], ids=str)
def grown(request):
    """A tree grown with a rule; its client; where each token stands: (visit, place in the segment, ids before it)."""
    case, seed = request.param
    shape, response_length, eos_probability, interval = SHAPES[case]
    client = Numbered(seed, eos_probability)
    sampler = Sampler(client, "tree", {}, frozenset(range(ENDS, ENDS + 5000)))
    rule = after_improbable_tokens(0.9, interval)
    root = asyncio.run(grow_tree(sampler, PROMPT, shape, response_length, rule))
    visits = [visit for visit in walk(root) if visit.parent is not None]
    places = {
        t: (v, i, v.response_ids[: v.response_ids.index(t)]) for v in visits for i, t in enumerate(v.node.token_ids)
    }
    budgets = {v.path: shape.segment_budget(v.depth - 1, len(v.prefix_ids), response_length) for v in visits}
    return SimpleNamespace(
        client=client,
        shape=shape,
        length=response_length,
        interval=interval,
        visits=visits,
        places=places,
        budgets=budgets,
    )


def test_no_sampled_token_is_lost_or_used_twice(grown):
    in_tree = [token for visit in grown.visits for token in visit.node.token_ids]
    assert sorted(in_tree) == sorted(grown.client.log_prob_of)


def test_tokens_keep_their_log_probabilities(grown):
    for visit in grown.visits:
        assert visit.node.log_probs == [grown.client.log_prob_of[token] for token in visit.node.token_ids]


def test_every_request_is_sent_with_the_tokens_that_precede_its_answer(grown):
    for request, answer in grown.client.answers:
        assert request.asked == [*PROMPT, *grown.places[answer[0]][2]]


def test_every_request_asks_for_what_its_segment_lacks(grown):
    for request, answer in grown.client.answers:
        visit, place, _ = grown.places[answer[0]]
        assert request.params["max_tokens"] == grown.budgets[visit.path] - place


def test_an_answer_runs_on_in_first_children(grown):
    for _, answer in grown.client.answers:
        for token, following in zip(answer, answer[1:], strict=False):
            (visit, place, before), (next_visit, next_place, next_before) = grown.places[token], grown.places[following]
            assert next_before == (*before, token)
            here = next_visit.path == visit.path and next_place == place + 1
            assert here or (next_visit.path == (*visit.path, 0) and next_place == 0)


def test_all_but_first_children_are_sampled_afresh_from_the_node(grown):
    firsts = {answer[0] for _, answer in grown.client.answers}
    fresh = [visit for visit in grown.visits if visit.path[-1] > 0]
    assert fresh and all(visit.node.token_ids[0] in firsts for visit in fresh)


def test_segments_and_responses_keep_their_budgets(grown):
    assert all(1 <= len(visit.node.token_ids) <= grown.budgets[visit.path] for visit in grown.visits)
    assert all(len(visit.response_ids) <= grown.length for visit in grown.visits)


def test_before_the_last_level_a_segment_ends_by_the_rule_its_budget_or_the_response(grown):
    for visit in grown.visits:
        node = visit.node
        improbable = [i for i, log_prob in enumerate(node.log_probs) if log_prob == LOW]
        spent = len(node.token_ids) == grown.budgets[visit.path]
        if visit.depth == grown.shape.depth:
            assert spent or node.finished  # the last level ignores the rule
        else:
            by_rule = len(improbable) == grown.interval and improbable[-1] == len(node.token_ids) - 1
            assert by_rule or ((spent or node.finished) and len(improbable) < grown.interval)


def test_only_the_end_of_a_response_and_a_spent_budget_make_leaves(grown):
    for visit in grown.visits:
        ended = visit.node.token_ids[-1] > ENDS
        assert visit.node.finished == ended
        spent = len(visit.response_ids) == grown.length
        assert visit.node.is_leaf == (ended or spent or visit.depth == grown.shape.depth)


def test_a_node_has_all_of_its_children(grown):
    for visit in grown.visits:
        if not visit.node.is_leaf:
            assert len(visit.node.children) == grown.shape.branch_factors[visit.depth]


def test_a_failed_request_for_the_rest_of_a_segment_fails_the_tree():
    client = Answers(([1, 2], "x."), ([], ""))  # the second segment has one token and asks for another
    sampler = Sampler(client, "tree", {}, frozenset({EOS}))
    with pytest.raises(SamplingError, match=r"segment \(0, 0\)"):
        asyncio.run(grow_tree(sampler, PROMPT, TreeSettings((1, 1, 1), 2), 9, AFTER_ONE))
    assert client.asked[1] == ([*PROMPT, 1, 2], 1)
