"""The context schedule: when it switches, what a response may spend, and what is refused."""

from __future__ import annotations

import copy

import pytest

from recipe.spo.parsing import parse_settings
from recipe.spo.reader import SettingsError
from recipe.spo.schedule import ContextSchedule, Stage
from tests.unit.test_settings import of_method

#: The paper's run (R1-Distill-Qwen-1.5B on MATH); prompts of up to 512 tokens.
PROMPT, RESPONSE = 512, 3584
PAPER = [
    {"from_step": 1, "context": 2048, "segment_length": 600},
    {"from_step": 401, "context": 4096, "segment_length": 1111},
]


def scheduled(schedule, of="tree", response=RESPONSE, prompt=PROMPT, **shape):
    node = {**of_method(of), "context_schedule": copy.deepcopy(schedule)}
    for name, change in shape.items():
        node[name] = {**node[name], **change}
    return parse_settings(node, response, prompt)


def test_the_switch_is_at_the_stated_step_and_depends_on_nothing_else():
    spo = scheduled(PAPER)
    contexts = {step: spo.context_at(step, full=9999) for step in (0, 1, 400, 401, 10_000)}
    assert contexts == {0: 2048, 1: 2048, 400: 2048, 401: 4096, 10_000: 4096}
    # A resumed run parses its settings again and asks for the step that it goes on with.
    assert [scheduled(PAPER).context_at(step, full=9999) for step in (400, 401, 402)] == [2048, 4096, 4096]
    assert spo.tree_at(400).segment_lengths == (600, 600) and spo.tree_at(401).segment_lengths == (1111, 1111)
    assert spo.tree_at(401).branch_factors == (6, 6, 6)


def test_a_budget_is_what_the_prompt_leaves_and_no_more_than_the_response_length():
    spo = scheduled(PAPER)
    assert spo.response_budget(400, prompt_tokens=100, response_length=RESPONSE) == 1948
    assert spo.response_budget(401, prompt_tokens=100, response_length=RESPONSE) == RESPONSE  # not 3996
    assert spo.response_budget(401, prompt_tokens=PROMPT, response_length=RESPONSE) == 3584
    with pytest.raises(ValueError, match="a prompt of 2048 tokens leaves nothing of a context of 2048"):
        spo.response_budget(1, prompt_tokens=2048, response_length=RESPONSE)


def test_without_a_schedule_nothing_changes():
    spo = scheduled(None)
    assert spo.context_at(7, full=4096) == 4096 and spo.tree_at(7) == spo.tree
    assert spo.response_budget(7, prompt_tokens=100, response_length=RESPONSE) == RESPONSE


def test_a_stage_without_segment_length_keeps_the_trees_own():
    spo = scheduled([{"from_step": 1, "context": 2048}, {"from_step": 3, "context": 4096, "segment_length": [50, 60]}])
    assert spo.tree_at(2).segment_lengths == (30, 30) and spo.tree_at(3).segment_lengths == (50, 60)


@pytest.mark.parametrize("of", ["chain", "grpo", "ppo"])
def test_every_method_has_contexts(of):
    spo = scheduled([{"from_step": 1, "context": 1024}, {"from_step": 2, "context": 2048}], of=of)
    assert [spo.response_budget(step, 24, RESPONSE) for step in (1, 2)] == [1000, 2024]


@pytest.mark.parametrize("steps", [[], [2], [1, 1], [1, 5, 3]])
def test_stages_that_do_not_rise_from_step_1_are_no_schedule(steps):
    with pytest.raises(ValueError, match="strictly rising steps from 1"):
        ContextSchedule(tuple(Stage(step, 100) for step in steps))


def test_there_is_no_negative_step():
    with pytest.raises(ValueError, match="no training step -1"):
        ContextSchedule((Stage(1, 100),)).stage_at(-1)


def stage(**changes):
    return {"from_step": 1, "context": 2048, **changes}


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([], r"context_schedule is \[\]: give a list of stages"),
        ("2048", "context_schedule is '2048': give a list of stages"),
        ([2048], r"context_schedule\[0\] is 2048: it must hold from_step, context"),
        ([{"context": 2048}], r"context_schedule\[0\].from_step is missing"),
        ([stage(contxt=1)], r"unknown key algorithm.spo.context_schedule\[0\].contxt: did you mean 'context'"),
        ([stage(from_step=2)], r"context_schedule\[0\].from_step is 2: the first stage begins with step 1"),
        ([stage(from_step=0)], r"context_schedule\[0\].from_step is 0: it must be a whole number of at least 1"),
        ([stage(), stage()], r"context_schedule\[1\].from_step is 1: it must be later"),
        ([stage(), stage(from_step=9), stage(from_step=8)], r"context_schedule\[2\].from_step is 8: .*begins with 9"),
        ([stage(context=-5)], r"context_schedule\[0\].context is -5: it must be a whole number"),
        ([stage(context=4097)], r"\[0\].context is 4097: .* = 4096; raise data.max_response_length to 3585"),
        ([stage(context=512)], r"\[0\].context is 512: it must exceed data.max_prompt_length=512"),
        ([stage(segment_length=0)], r"\[0\].segment_length is 0"),
        ([stage(segment_length=[1, 2, 3])], r"\[0\].segment_length lists 3 levels"),
        ([stage(segment_length=768)], r"\[0\]: 2 levels of \[768, 768\] tokens leave nothing .* the 1536 response"),
        ([stage(), stage(from_step=2, context=572)], r"\[1\]: 2 levels of \[30, 30\] tokens leave nothing"),
    ],
)
def test_wrong_stages_are_refused_by_name(schedule, message):
    with pytest.raises(SettingsError, match=message):
        scheduled(schedule)


def test_the_last_level_may_be_one_token():
    assert scheduled([stage(context=573)]).tree_at(1).segment_lengths == (30, 30)


def test_only_trees_have_segments_in_a_stage():
    with pytest.raises(SettingsError, match=r"\[0\].segment_length is 600: in a stage, only trees have one"):
        scheduled(PAPER, of="chain")


def test_a_chain_of_fixed_length_must_be_cut_in_every_stage():
    fixed = {"partition": "fixed_length", "cut_interval": None, "segment_length": 200}
    with pytest.raises(SettingsError, match=r"\[0\].context is 712: a response of 200 tokens is never cut"):
        scheduled([stage(context=712)], of="chain", chain=fixed)
    assert scheduled([stage(context=713)], of="chain", chain=fixed)


def test_a_schedule_needs_the_prompt_length():
    with pytest.raises(SettingsError, match="context_schedule counts the prompt too: set data.max_prompt_length"):
        scheduled(PAPER, prompt=None)
