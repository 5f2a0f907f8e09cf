"""Sampling chains against a scripted client."""

from __future__ import annotations

import asyncio
from itertools import count
from types import SimpleNamespace

import pytest

from recipe.spo.chain import ChainRollout
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.sampler import Sampler, SamplingError
from recipe.spo.settings import ChainSettings
from recipe.spo.tree import Node
from tests.unit.test_grow_tree import EOS, PROMPT, ScriptedClient


def grow(client, partition, trajectories=3, continuations=4, response_length=12) -> ChainRollout:
    sampler = Sampler(client, "chain-1", {"temperature": 1.0}, frozenset({EOS}))
    shape = ChainSettings(trajectories, continuations, "low_probability")
    return asyncio.run(grow_chain(sampler, PROMPT, shape, partition, response_length))


def cut_at(*cuts: int):
    return lambda response: list(cuts)


class AlwaysTheSame(ScriptedClient):
    """Every response from the prompt is the same."""

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
        output.token_ids = list(range(1, len(output.token_ids) + 1))
        return output


@pytest.mark.parametrize("trajectories", [1, 3, 5])
def test_each_distinct_state_is_continued_k_times(trajectories):
    client = ScriptedClient()
    rollout = grow(client, cut_at(0, 3, 7), trajectories)
    states = {t.state(cut) for t in rollout.trajectories for cut in (0, 3, 7)}
    assert len(states) == 1 + 2 * trajectories  # all share the prompt's
    assert {state: len(samples) for state, samples in rollout.continuations.items()} == dict.fromkeys(states, 4)
    assert len(client.requests) == trajectories + 4 * len(states)


def test_equal_prefixes_of_two_responses_are_continued_once():
    client = AlwaysTheSame()
    rollout = grow(client, cut_at(0, 5), trajectories=2)
    assert set(rollout.continuations) == {(), (1, 2, 3, 4, 5)}
    assert len(client.requests) == 2 + 2 * 4


def test_without_cuts_nothing_is_continued():
    client = ScriptedClient()
    rollout = grow(client, cut_at())
    assert not rollout.continuations and len(client.requests) == 3


def test_contexts_are_prompt_and_prefix_and_budgets_are_what_remains():
    client = ScriptedClient(eos_probability=0.05, seed=4)
    rollout = grow(client, lambda node: list(range(0, len(node.token_ids), 5)))
    asked = sorted((tuple(r.prompt_ids), r.params["max_tokens"]) for r in client.requests)
    continued = [((*PROMPT, *state), 12 - len(state)) for state in rollout.continuations] * 4
    assert asked == sorted([(tuple(PROMPT), 12)] * 3 + continued)
    assert all(len(ids) <= 12 for ids, _ in rollout.endings())


def test_the_partition_sees_the_response_that_is_kept():
    seen: list[Node] = []
    rollout = grow(ScriptedClient(), lambda node: seen.append(node) or [1])
    assert sorted(map(id, seen)) == sorted(id(trajectory.response) for trajectory in rollout.trajectories)
    assert all(trajectory.cuts == [1] for trajectory in rollout.trajectories)


def test_all_requests_carry_one_request_id():
    client = ScriptedClient()
    grow(client, cut_at(0, 4))
    assert {request.id for request in client.requests} == {"chain-1"}


def test_a_slow_response_does_not_hold_up_the_continuations_of_another():
    class FirstIsSlow(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            if not self.requests:
                self.requests.append(None)
                while len(self.requests) < 2 + 4:  # ends only after the other's continuations have been asked for
                    await asyncio.sleep(0)
                return SimpleNamespace(token_ids=[9, EOS], log_probs=[-1.0] * 2, stop_reason=None, extra_fields={})
            return await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)

    rollout = grow(FirstIsSlow(), cut_at(1), trajectories=2)
    assert rollout.trajectories[0].response.token_ids == [9, EOS] and len(rollout.continuations) == 2


@pytest.mark.parametrize("cuts", [[3, 3], [5, 2], [-1, 4], [0, 12], [12], [40]])
def test_cuts_that_do_not_increase_within_the_response_are_refused(cuts):
    with pytest.raises(ValueError, match="cut a response of 12 tokens at"):
        grow(ScriptedClient(), cut_at(*cuts))


@pytest.mark.parametrize("failing", [1, 3, 9])  # responses come first, continuations after
def test_a_failed_request_fails_the_rollout(failing):
    number = count(1)

    class Fails(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            mine = next(number)
            output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
            return SimpleNamespace(**{**vars(output), "token_ids": []}) if mine == failing else output

    with pytest.raises(SamplingError, match="no token"):
        grow(Fails(), cut_at(0, 4))
