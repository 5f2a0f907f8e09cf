"""verl's entry: the right grader for each data source, unfinished responses, and errors that help."""

import pytest
from omegaconf import OmegaConf

from data_prep.names import GSM8K
from recipe.spo.rewards.score import DATA_SOURCES, TASKS, compute_score, grader_for
from recipe.spo.rewards.verdict import Reason, Verdict
from tests.conftest import REPOSITORY

SOLVED = {
    "gsm8k": ("#### 24", "24"),
    "math": (r"\boxed{\frac{48}{2}}", "24"),
    "point24": (r"\boxed{4*6}", '{"numbers": [4, 6]}'),
}


@pytest.mark.parametrize("data_source", DATA_SOURCES)
def test_each_data_source_has_its_grader(data_source):
    for task, (response, truth) in SOLVED.items():
        if DATA_SOURCES[data_source] == task:
            assert compute_score(data_source, response, truth)["score"] == 1.0
            assert compute_score(data_source, response + "\n####\n\\boxed{", truth)["acc"] in (0.0, 1.0)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_for_data_of_ones_own(task):
    response, truth = SOLVED[task]
    assert compute_score("mine", response, truth, None, task=task)["score"] == 1.0
    assert compute_score("openai/gsm8k", response, truth, None, task=task)["score"] == 1.0


def test_what_is_graded_ends_before_the_first_stop_text():
    response, extra = "2+3=5\n#### 5\n\n\nProblem:\nAnd 2 more?\n#### 7", {"stop": ["\n\n\nProblem:", "###END"]}
    assert compute_score(GSM8K, response, "5", extra)["reason"] == "correct"
    assert compute_score(GSM8K, response, "7", extra)["reason"] == "wrong"
    assert compute_score(GSM8K, response, "7")["pred"] != "5"


def test_an_unfinished_response_earns_nothing():
    for extra, reason in (({"finished": False}, "unfinished"), ({"finished": True}, "correct"), ({}, "correct")):
        reward = compute_score("openai/gsm8k", "#### 24", "24", extra)
        assert reward["reason"] == reason
        assert reward["score"] == float(reason == "correct")
        assert reward["is_unfinished"] == float(reason == "unfinished")


def test_the_grader_of_parity():
    assert compute_score("DigitalLearningGmbH/MATH-lighteval", "so 24", "24")["reason"] == "no_answer"
    assert compute_score("DigitalLearningGmbH/MATH-lighteval", "so 24", "24", grader="minerva")["reason"] == "correct"


@pytest.mark.parametrize(
    ("data_source", "options", "message"),
    [
        ("mine", {}, "'mine'.*openai/gsm8k.*reward_kwargs.task to one of gsm8k, math, point24"),
        ("mine", {"task": "chess"}, "'chess' is not known; there are gsm8k, math, point24"),
        ("openai/gsm8k", {"grader": "llm"}, "'llm' is not known; there are math-verify, minerva"),
    ],
)
def test_what_is_not_known_is_an_error(data_source, options, message):
    with pytest.raises(ValueError, match=message):
        grader_for(data_source, **options)


def test_every_verdict_has_the_same_columns():
    keys = {tuple(Verdict(reason).as_reward()) for reason in Reason}
    assert len(keys) == 1
    assert {reason for reason in Reason if Verdict(reason).score} == {Reason.CORRECT}


def test_the_configuration_names_this_entry():
    config = OmegaConf.load(REPOSITORY / "recipe/spo/config/spo_trainer.yaml")
    assert config.reward.custom_reward_function == {"path": "pkg://recipe.spo.rewards.score", "name": "compute_score"}


def test_verl_calls_it_with_its_own_arguments():
    reward = compute_score(
        data_source="openai/gsm8k",
        solution_str="#### 24",
        ground_truth="24",
        extra_info={"num_turns": None, "rollout_reward_scores": {}},
        reward_router_address=None,
        reward_model_tokenizer=None,
    )
    assert reward["score"] == 1.0
