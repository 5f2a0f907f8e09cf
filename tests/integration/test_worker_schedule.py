"""Rollout worker and trainer under a context schedule, with what verl does for them replaced."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from recipe.spo.rollout import worker as module
from recipe.spo.rollout.ending import at_texts
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.stopping import at_full_length
from recipe.spo.tree import walk
from tests.unit.test_grow_tree import EOS, ScriptedClient
from tests.unit.test_schedule import scheduled

pytestmark = pytest.mark.integration

PROMPT, RESPONSE = list(range(1, 9)), 40  # 8 prompt tokens of at most 16
SCHEDULE = [
    {"from_step": 1, "context": 28, "segment_length": 4},
    {"from_step": 3, "context": 56, "segment_length": 10},
]


@pytest.fixture
def worker():
    """A worker that has not been started: only what these calls look at."""
    made = object.__new__(module.SPOAgentLoopWorker)
    made.settings = scheduled(
        SCHEDULE, response=RESPONSE, prompt=16, tree={"branch_factors": [2, 2, 2], "segment_length": 4}
    )
    made.response_length, made.cutting, made.eos_ids = RESPONSE, at_full_length, frozenset({EOS})
    made.end_rule = None
    made._prompt_ids = lambda messages: PROMPT
    return made


@pytest.mark.parametrize(("step", "lengths"), [(2, {4, 20 - 8}), (3, {10, 40 - 20})])
def test_a_step_samples_the_tree_of_its_stage(worker, step, lengths):
    sampler = Sampler(ScriptedClient(), "tree", {}, frozenset({EOS}))
    root = asyncio.run(worker._grow(sampler, PROMPT, {"global_steps": step}))
    assert {len(visit.node.token_ids) for visit in walk(root)} == {0, *lengths}


@pytest.mark.parametrize(("step", "budget"), [(0, 20), (2, 20), (3, 40)])
def test_validation_has_the_context_of_its_step(worker, monkeypatch, step, budget):
    asked = []

    async def verls_own(self, sampling_params, trajectory, **rest):
        asked.append(sampling_params)

    monkeypatch.setattr(module.SPOAgentLoopWorker.__mro__[1], "_run_agent_loop", verls_own)
    prompt = {"raw_prompt": [], "global_steps": step}
    params = {"temperature": 0.0}
    asyncio.run(worker._run_agent_loop(params, {"validate": True}, agent_name="single_turn_agent", **prompt))
    assert asked == [{"temperature": 0.0, "max_tokens": budget}] and params == {"temperature": 0.0}


@pytest.mark.parametrize("validate", [True, False])
def test_texts_that_end_a_response_reach_the_sampler_and_the_grader(worker, monkeypatch, validate):
    asked, graded = [], []

    async def verls_own(self, sampling_params, trajectory, **rest):
        asked.append(sampling_params)

    async def ours(sampling_params, prompt):
        asked.append(sampling_params)

    async def verls_score(self, outputs, kwargs):
        graded.append(kwargs["extra_info"])

    monkeypatch.setattr(module.SPOAgentLoopWorker.__mro__[1], "_run_agent_loop", verls_own)
    monkeypatch.setattr(module.SPOAgentLoopWorker.__mro__[1], "_compute_score", verls_score)
    worker._roll_out = ours
    for stop in ((), ("###",)):
        worker.settings = replace(worker.settings, stop=stop, context_schedule=None)
        call = worker._run_agent_loop({}, {"validate": validate}, agent_name="single_turn_agent", raw_prompt=[])
        asyncio.run(call)
        output = SimpleNamespace(prompt_ids=PROMPT, response_ids=[5] * 20)
        asyncio.run(worker._compute_score([output], kwargs={"global_steps": 1}))
    assert asked == [{}, {"stop": ["###"]}]
    assert graded == [{"finished": True}, {"finished": True, "stop": ["###"]}]


def test_in_validation_a_text_that_ends_with_the_budget_ends_the_response(worker, monkeypatch):
    graded = []

    async def verls_own(self, outputs, kwargs):
        graded.append(kwargs["extra_info"]["finished"])

    monkeypatch.setattr(module.SPOAgentLoopWorker.__mro__[1], "_compute_score", verls_own)
    worker.end_rule = at_texts(["##"], lambda token_ids: "".join(map(chr, token_ids)))
    for text in ("a" * 18 + "##", "a" * 19 + "#"):
        output = SimpleNamespace(prompt_ids=PROMPT, response_ids=[ord(letter) for letter in text])
        asyncio.run(worker._compute_score([output], kwargs={"global_steps": 2}))
    assert graded == [True, False]


@pytest.mark.parametrize(("step", "finished"), [(2, False), (3, True)])
def test_a_response_that_spent_its_stages_budget_is_unfinished(worker, monkeypatch, step, finished):
    graded = []

    async def verls_own(self, outputs, kwargs):
        graded.append(kwargs["extra_info"]["finished"])

    monkeypatch.setattr(module.SPOAgentLoopWorker.__mro__[1], "_compute_score", verls_own)
    output = SimpleNamespace(prompt_ids=PROMPT, response_ids=[5] * 20)
    asyncio.run(worker._compute_score([output], kwargs={"global_steps": step}))
    assert graded == [finished]


@pytest.mark.parametrize(("step", "context"), [(1, 28), (2, 28), (3, 56)])
def test_every_step_shows_its_context(worker, monkeypatch, step, context):
    """With `global_steps` as verl sets it after a resume: nothing is counted from the start of the process."""
    from recipe.spo.trainer import SPOTrainer

    monkeypatch.setattr(SPOTrainer.__mro__[1], "_step_once", lambda self, metrics, timing, size: None)
    trainer = object.__new__(SPOTrainer)
    trainer.spo, trainer.global_steps = worker.settings, step
    trainer.checkpoints = SimpleNamespace(count=lambda metrics: None)
    trainer.config = SimpleNamespace(data=SimpleNamespace(max_prompt_length=16, max_response_length=RESPONSE))
    metrics = {}
    trainer._step_once(metrics, {}, 1)
    assert metrics == {"spo/context": context}
