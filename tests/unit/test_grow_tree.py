"""Growing a tree against a scripted client: budgets, ends, ids, concurrency, failures."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from recipe.spo.rollout.sampler import Sampler, SamplingError, derived_seed
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import TreeSettings
from recipe.spo.tree import walk

EOS = 0
PROMPT = [91, 92, 93]


class ScriptedClient:
    """Answers like verl's client: random tokens, EOS with some probability, and a record of requests.

    A request with a seed gets the same tokens whenever it comes, as from vLLM.
    """

    def __init__(self, eos_probability: float = 0.0, seed: int = 0):
        self.random = random.Random(seed)
        self.eos_probability = eos_probability
        self.requests: list[SimpleNamespace] = []

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        self.requests.append(SimpleNamespace(id=request_id, prompt_ids=prompt_ids, params=sampling_params))
        await asyncio.sleep(self.random.random() / 1000)
        draw = random.Random(sampling_params["seed"]) if "seed" in sampling_params else self.random
        ids = []
        while len(ids) < sampling_params["max_tokens"]:
            end = draw.random() < self.eos_probability
            ids.append(EOS if end else draw.randrange(1, 90))
            if end:
                break
        fields = {"global_steps": 3, "num_cached_tokens": len(prompt_ids) - 1}
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=fields)


def grow(client, branch_factors=(3, 2, 2), segment_length=4, response_length=20, **options):
    sampler = Sampler(client, "tree-1", {"temperature": 1.0}, frozenset({EOS}), **options)
    shape = TreeSettings(tuple(branch_factors), segment_length)
    return asyncio.run(grow_tree(sampler, PROMPT, shape, response_length)), sampler


def test_a_full_tree_has_the_shape_and_budgets_of_the_settings():
    client = ScriptedClient()
    root, _ = grow(client)
    visits = list(walk(root))
    assert [sum(v.depth == d for v in visits) for d in range(4)] == [1, 3, 6, 12]
    assert {len(v.node.token_ids) for v in visits if v.depth in (1, 2)} == {4}
    assert {len(v.node.token_ids) for v in visits if v.depth == 3} == {12}  # 20 - 4 - 4
    assert all(not v.node.finished for v in visits)


def test_context_is_prompt_and_path_by_token_id():
    client = ScriptedClient(eos_probability=0.1)
    root, _ = grow(client)
    asked = sorted(tuple(request.prompt_ids) for request in client.requests)
    expected = sorted((*PROMPT, *visit.prefix_ids) for visit in walk(root) if visit.parent is not None)
    assert asked == expected


def test_eos_makes_an_early_leaf_at_any_depth():
    root, _ = grow(ScriptedClient(eos_probability=0.2, seed=1))
    ended = [v for v in walk(root) if v.parent is not None and v.node.token_ids[-1] == EOS]
    assert {v.depth for v in ended} == {1, 2, 3}
    assert all(v.node.finished and v.node.is_leaf for v in ended)
    others = [v for v in walk(root) if v.parent is not None and v.node.token_ids[-1] != EOS]
    assert all(not v.node.finished for v in others)


def test_eos_as_the_last_token_of_the_budget_is_an_end():
    class EndsOnBudget(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
            output.token_ids[-1] = EOS
            return output

    root, _ = grow(EndsOnBudget())
    assert [v.depth for v in walk(root)] == [0, 1, 1, 1]
    assert all(child.finished for child in root.children)


def test_fewer_tokens_than_asked_for_without_eos_is_a_stop_sequence():
    class StopsShort(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
            output.token_ids, output.log_probs = output.token_ids[:2], output.log_probs[:2]
            return output

    root, _ = grow(StopsShort())
    assert all(child.finished and child.is_leaf for child in root.children)


def test_a_spent_budget_makes_an_unfinished_leaf_before_the_last_level():
    root, _ = grow(ScriptedClient(), branch_factors=(2, 2, 2), segment_length=(4, 6), response_length=10)
    leaves = [v for v in walk(root) if v.node.is_leaf]
    assert {v.depth for v in leaves} == {2} and not any(v.node.finished for v in leaves)


def test_one_request_id_and_no_seed():
    client = ScriptedClient()
    grow(client)
    assert {request.id for request in client.requests} == {"tree-1"}
    assert all("seed" not in request.params for request in client.requests)


def test_deterministic_seeds_differ_between_siblings_and_repeat():
    first, second = ScriptedClient(), ScriptedClient()
    grow(first, seed=5)
    grow(second, seed=5)
    seeds = sorted(request.params["seed"] for request in first.requests)
    assert len(set(seeds)) == len(seeds)
    assert seeds == sorted(request.params["seed"] for request in second.requests)
    assert derived_seed(5, (0, 1)) != derived_seed(6, (0, 1))


def test_cache_and_weight_version_are_accounted():
    client = ScriptedClient()
    _, sampler = grow(client)
    assert sampler.prompt_tokens == sum(len(request.prompt_ids) for request in client.requests)
    assert sampler.cached_tokens == sampler.prompt_tokens - len(client.requests)
    assert (sampler.min_global_steps, sampler.max_global_steps) == (3, 3)


def test_a_child_does_not_wait_for_its_slow_siblings():
    order: list[int] = []

    class OneSlowChild(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            depth_one = len(prompt_ids) == len(PROMPT)
            if depth_one and not self.requests:
                self.requests.append(None)
                while len(order) < 3:  # ends only after a sibling's children have been asked for
                    await asyncio.sleep(0)
                return SimpleNamespace(
                    token_ids=[EOS], log_probs=[-1.0], stop_reason="completed", extra_fields={"global_steps": 1}
                )
            if not depth_one:
                order.append(1)
            return await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)

    root, _ = grow(OneSlowChild(), branch_factors=(2, 3), segment_length=4)
    assert len(order) == 3 and root.children[0].finished


@pytest.mark.parametrize("fault", ["aborted", "no tokens", "no log_probs"])
def test_a_bad_answer_raises_and_names_the_segment(fault):
    class Faulty(ScriptedClient):
        async def generate(self, request_id, *, prompt_ids, sampling_params):
            output = await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)
            if fault == "aborted":
                output.stop_reason = "aborted"
            elif fault == "no tokens":
                output.token_ids = []
            else:
                output.log_probs = None
            return output

    with pytest.raises(SamplingError, match=r"segment \(\d,\)"):
        grow(Faulty())


def test_a_tree_asks_the_load_balancer_once_and_lets_go_after_a_failure():
    from recipe.spo.compat.llm_client import TreeClient

    calls: list[str] = []
    scripted = ScriptedClient()

    class Server:
        class generate:
            @staticmethod
            async def remote(request_id, prompt_ids, sampling_params):
                calls.append(request_id)
                return await scripted.generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params)

    class VerlClient:
        async def _acquire_server(self, request_id, **extra):
            calls.append(f"acquire {request_id} {extra['prompt_ids']}")
            return "server-0", Server

        def _release_server(self, server_id, request_id):
            calls.append(f"release {server_id} {request_id}")

        def _vllm_request_id(self, request_id):
            return f"fresh-{len(calls)}"

    async def roll_out(fail: bool):
        async with TreeClient(VerlClient(), "tree-1", PROMPT) as client:
            sampler = Sampler(client, "tree-1", {}, frozenset({EOS}))
            await grow_tree(sampler, PROMPT, TreeSettings((2, 2), 4), 10)
            if fail:
                raise SamplingError("stop")

    asyncio.run(roll_out(fail=False))
    assert calls[0] == "acquire tree-1 [91, 92, 93]" and calls[-1] == "release server-0 tree-1"
    assert len(calls) == len(set(calls)) == 2 + 6  # two children and two each of theirs, ids all different
    calls.clear()
    with pytest.raises(SamplingError):
        asyncio.run(roll_out(fail=True))
    assert calls[-1] == "release server-0 tree-1"
