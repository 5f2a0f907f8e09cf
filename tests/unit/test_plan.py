"""The plan of a run: numbers by hand, and what it says when something is not known."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from recipe.spo.bounds import tree_bounds
from recipe.spo.inputs import PreflightError
from recipe.spo.memory import GIB, MemoryOptions, estimate_memory
from recipe.spo.model_shape import ModelShape
from recipe.spo.parsing import settings_of
from recipe.spo.plan import make_plan
from recipe.spo.plan_table import WIDTH, plan_rows, print_plan
from recipe.spo.reader import SettingsError
from recipe.spo.settings import TreeSettings
from tests.unit.test_fit import LLAMA

SHAPE = ModelShape("Some", 1000 * GIB, 100 * GIB, 8, 64, 256, 5000, {})


def planned(config, **changes):
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    settings = settings_of(config, config.data.max_response_length)
    plan = make_plan(config, settings)
    return plan, dict(plan_rows(config, settings, plan))


def test_numbers_of_a_small_run(config):
    plan, rows = planned(config, trainer__total_epochs=25, actor_rollout_ref__actor__ppo_epochs=2)
    (stage,) = plan.stages
    assert stage.question == tree_bounds(TreeSettings((6, 6, 6), 30), 100)  # no schedule: the whole response length
    assert (plan.steps, plan.optimizer_steps) == (25, 8)  # 4 prompts, 4 a step
    assert (plan.validations, plan.validation_responses, plan.validation_tokens) == (4, 4, 400)  # 0, 10, 20, 25
    assert stage.trained_rows == 4 * 258 and stage.trained_tokens == 4 * stage.question.generated_tokens
    assert rows["generated tokens a step"] == "39,600 (9,900 a question)"  # 42 * 30 + 216 * 40
    assert rows["optimiser steps"] == "8 a step, 200 in all"


def test_a_token_budget_is_part_of_the_plan(config):
    assert "ends before" not in planned(config)[1]
    _, rows = planned(config, algorithm__spo__token_budget=300000)
    assert rows["ends before"] == "once 300,000 tokens have been generated for training"


def test_samples_that_are_left_out_are_not_counted(config):
    plan, _ = planned(config, data__val_max_samples=3, data__train_max_samples=2, data__train_batch_size=2)
    assert plan.validation_responses == 3 and plan.steps == 2  # two epochs of two prompts


@pytest.mark.parametrize(
    ("steps", "freq", "before", "times"), [(20, 10, True, 3), (20, 10, False, 2), (9, -1, True, 1)]
)
def test_validations_are_counted_as_verl_does(config, steps, freq, before, times):
    changes = {"trainer__total_training_steps": steps, "trainer__test_freq": freq, "trainer__val_before_train": before}
    assert planned(config, **changes)[0].validations == times


def test_each_stage_has_its_numbers(config):
    schedule = [{"from_step": 1, "context": 90}, {"from_step": 8, "context": 110, "segment_length": 40}]
    plan, rows = planned(config, algorithm__spo__context_schedule=schedule)
    first, second = (stage.question.generated_tokens for stage in plan.stages)
    assert first == 42 * 30 + 216 * (89 - 60) and second == 42 * 40 + 216 * (100 - 80)  # 100: the response length
    assert rows["steps 1 to 7"] == "context of 90 tokens" and rows["steps from 8"] == "context of 110 tokens"
    assert plan.validation_tokens == 400


def test_a_capped_step_trains_the_longest_rows(config):
    changes = {"rows_per_step": 512, "rows_per_question": 32, "max_age": 7}
    (stage,) = planned(config, algorithm__spo__replay=changes)[0].stages
    assert (stage.trained_rows, stage.trained_tokens) == (512, 512 * 40)


def test_what_a_step_generates_on_average(config, tmp_path):
    _, rows = planned(config)
    assert rows["  on average"] == "not known: give algorithm.spo.expect_responses"
    _, rows = planned(config, algorithm__spo__expect_responses=50)  # 6 * 30 + 36 * 20 a question, of four
    assert rows["  on average"] == "about 3,600, for responses as in algorithm.spo.expect_responses"
    sample = tmp_path / "responses.parquet"
    pq.write_table(pa.table({"tokens": [10, 50, 400]}), sample)
    plan, _ = planned(config, algorithm__spo__expect_responses=str(sample))
    each = [6 * 10, 6 * 30 + 36 * 20, 42 * 30 + 216 * 40]
    assert plan.stages[0].expected_tokens == pytest.approx(sum(each) / 3)
    tree = {"partition": "lines"}
    _, rows = planned(config, algorithm__spo__tree=OmegaConf.merge(config.algorithm.spo.tree, tree))
    assert rows["  on average"].startswith("not known: partition lines needs the responses' token ids")


@pytest.mark.parametrize(
    ("responses", "complaint"),
    [
        ("no.parquet", "does not exist"),
        ("lengths.txt", "a number of tokens, or a parquet file"),
        (0, "a whole number of at least 1"),
        ({"length": [3]}, "no readable column `tokens`"),
        ({"tokens": [3, None]}, "whole numbers of at least 1"),
        ({"tokens": ["3"]}, "whole numbers of at least 1"),
    ],
)
def test_lengths_that_cannot_be_read_are_refused(config, tmp_path, responses, complaint):
    if isinstance(responses, dict):
        pq.write_table(pa.table(responses), tmp_path / "sample.parquet")
        responses = str(tmp_path / "sample.parquet")
    with pytest.raises((PreflightError, SettingsError), match=r"algorithm\.spo\.expect_responses") as caught:
        planned(config, algorithm__spo__expect_responses=responses)
    assert complaint in str(caught.value)


def test_without_data_and_model_it_says_so(config):
    changes = {"data__train_files": "no.parquet", "data__val_files": "no.parquet"}
    plan, rows = planned(config, actor_rollout_ref__model__path="nobody/has-this-model", **changes)
    assert plan.steps is None and plan.model is None and plan.memory is None
    assert rows["steps"] == rows["validation"] == "not known without the data"
    assert "it is not on this machine, and a plan downloads nothing" in rows["model"]
    assert rows["memory a GPU"].startswith("not estimated")


def test_a_model_that_is_here_is_measured(config, folder, capsys):
    config.actor_rollout_ref.model.path = str(folder(LLAMA))
    plan, rows = planned(config)
    assert plan.model.layers == 3 and plan.memory is not None
    assert rows["memory a GPU, sampling"].startswith("vLLM takes 50% of the card")
    assert "24 GiB card: fits" in rows[""] and "An estimate" in rows[""]
    print_plan(config, settings_of(config, 100), plan)
    printed = capsys.readouterr().out
    assert "LlamaForCausalLM" in printed and max(map(len, printed.splitlines())) <= WIDTH
    config.trainer.device = "cpu"
    assert planned(config)[1]["memory"].startswith("not estimated for the CPU")


def test_memory_by_hand():
    got = estimate_memory(SHAPE, MemoryOptions(ranks=4, tokens=1024, tensor_parallel=2))
    assert (got.weights, got.gradients, got.optimizer) == (1000, 1000, 2000)
    assert got.gathered == 2 * (200 + 2 * 100)
    one_layer = 1024 * (8 * 64 + 4 * 256)
    assert got.activations * GIB == 2 * 1024 * 64 * 8 + 4 * one_layer
    assert got.logits * GIB == 10 * 1024 * 5000
    assert (got.kept_while_sampling, got.engine_weights) == (3000, 1000)
    assert got.training == pytest.approx(1000 + 1000 + 2000 + 800 + got.activations + got.logits)


def test_what_saves_memory_does():
    def estimate(**options):
        return estimate_memory(SHAPE, MemoryOptions(**{"ranks": 4, "tokens": 1024, **options}))

    assert estimate(keeps_parameters=False).kept_while_sampling == 2000
    assert estimate(keeps_parameters=False, keeps_optimizer=False).kept_while_sampling == 0
    adapters = estimate(trained_parameters=4 * GIB)
    assert (adapters.weights, adapters.gradients, adapters.optimizer) == (1000, 4, 8)
    assert estimate(gradient_checkpointing=False).activations > estimate().activations
    assert estimate(critic=True).optimizer == 2 * estimate().optimizer
    assert estimate(critic=True, trained_parameters=4 * GIB).optimizer == 8 + estimate().optimizer  # no adapters there
    host = estimate(shards_on_host=True)
    assert host.weights == host.gradients == host.optimizer == host.kept_while_sampling == 0
    assert host.training == host.gathered + host.activations + host.logits


def test_a_card_must_have_room_for_both_phases():
    small = ModelShape("Some", GIB, 0, 1, 1, 1, 1, {})  # training 16 + 2 gathered, keeps 12, the engine's weights 2
    got = estimate_memory(small, MemoryOptions(ranks=1, tokens=1))
    assert not got.fits(card=17, share=0.2) and got.fits(card=19, share=0.2)
    assert not got.fits(card=19, share=0.5)  # 9.5 and 12 while sampling
    assert not got.fits(card=19, share=0.1)  # 1.9 hold no weights of 2
