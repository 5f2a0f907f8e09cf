"""What a run is going to do and cost at most, as a table: printed before Ray starts, and on its own by

    python -m recipe.spo.plan [the overrides of recipe.spo.main_spo]

which checks the settings, starts nothing, downloads nothing and needs neither data nor a GPU
(`platform=gpu` plans for GPUs on a machine without one).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from recipe.spo.bounds import QuestionBounds, most_trained, question_bounds
from recipe.spo.expected import NotExpected, cuts_by_text, expected_tokens
from recipe.spo.inputs import load_tokenizer, paths_of, row_count
from recipe.spo.lora import adapter_parameters
from recipe.spo.memory import MemoryEstimate, MemoryOptions, estimate_memory
from recipe.spo.model_shape import ModelShape, ModelShapeError, local_config, measure
from recipe.spo.response_sample import read_sample
from recipe.spo.schedule import ContextSchedule, Stage
from recipe.spo.settings import SPOSettings

#: Cards, in GiB, for which the plan says whether the run fits.
CARDS = (24, 80)
#: (response budget, step) -> mean generated tokens of a question.
Expectation = Callable[[int, int], float]
#: The shortest prompt that bounds allow for; under a context schedule a shorter prompt leaves a longer response.
SHORTEST_PROMPT = 1


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Most that a step costs in one stage.

    Attributes:
        stage: of the schedule; without one, a single stage of the full context.
        question: bounds of one question.
        trained_rows: most rows that a step trains.
        trained_tokens: response tokens of those rows; a mask leaves fewer.
        expected_tokens: that one question generates on average; `None`: not known.
    """

    stage: Stage
    question: QuestionBounds
    trained_rows: int
    trained_tokens: int
    expected_tokens: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a run.

    Attributes:
        questions: a step.
        stages: in order.
        steps: iterations of the whole run; `None`: not known without the data.
        optimizer_steps: a step.
        validations: of the whole run; `None`: not known.
        validation_responses: of one validation; `None`: not known without the data.
        validation_tokens: most generated tokens of one validation; `None`: not known.
        model: sizes; `None`: no config.json on this machine.
        model_problem: why there are no sizes.
        memory: of one GPU; `None` without sizes, and on the CPU.
        not_expected: why no stage has `expected_tokens`; "" if they have.
    """

    questions: int
    stages: tuple[StagePlan, ...]
    steps: int | None
    optimizer_steps: int
    validations: int | None
    validation_responses: int | None
    validation_tokens: int | None
    model: ModelShape | None
    model_problem: str
    memory: MemoryEstimate | None
    not_expected: str


def make_plan(config: DictConfig, settings: SPOSettings) -> Plan:
    """Work out a plan from a checked configuration, its data's row counts and its model's config.json.

    Raises:
        PreflightError: `algorithm.spo.expect_responses` cannot be read.
    """
    data, trainer, val = config.data, config.trainer, config.actor_rollout_ref.rollout.val_kwargs
    schedule = settings.context_schedule
    if schedule is None:
        schedule = ContextSchedule((Stage(1, data.max_prompt_length + data.max_response_length),))
    expect, not_expected = _expectation(config, settings)
    try:
        stages = tuple(_stage_plan(config, settings, stage, expect) for stage in schedule.stages)
    except NotExpected as error:
        stages, not_expected = tuple(_stage_plan(config, settings, stage) for stage in schedule.stages), str(error)
    steps = _steps(config)
    prompts = _rows(data.val_files, data.val_max_samples)
    responses = None if prompts is None else prompts * val.n
    longest = max(_budget(config, settings, stage) for stage in schedule.stages)
    model, problem = _model(config)
    return Plan(
        questions=data.train_batch_size,
        stages=stages,
        steps=steps,
        optimizer_steps=settings.optimizer_steps * config.actor_rollout_ref.actor.ppo_epochs,
        validations=_validations(steps, trainer.test_freq, trainer.val_before_train),
        validation_responses=responses,
        validation_tokens=None if responses is None else responses * longest,
        model=model,
        model_problem=problem,
        memory=None if model is None or trainer.device == "cpu" else _memory(config, settings, model),
        not_expected=not_expected,
    )


def _expectation(config: DictConfig, settings: SPOSettings) -> tuple[Expectation | None, str]:
    """What gives the mean tokens of a question, by response budget and step; or why nothing does."""
    if settings.expect_responses is None:
        return None, "give algorithm.spo.expect_responses"
    sample = read_sample(settings.expect_responses, settings.chain.trajectories if settings.chain else 1)
    decode = None
    if cuts_by_text(settings) and sample.token_ids and local_config(str(config.actor_rollout_ref.model.path)):
        decode = load_tokenizer(config.actor_rollout_ref.model).decode
    return lambda budget, step: expected_tokens(settings, sample, budget, step, decode), ""


def _stage_plan(
    config: DictConfig, settings: SPOSettings, stage: Stage, expect: Expectation | None = None
) -> StagePlan:
    budget, step = _budget(config, settings, stage), stage.from_step
    question = question_bounds(settings, budget, step)
    rows, tokens = most_trained(question, config.data.train_batch_size, settings.replay)
    return StagePlan(stage, question, rows, tokens, None if expect is None else expect(budget, step))


def _budget(config: DictConfig, settings: SPOSettings, stage: Stage) -> int:
    return settings.response_budget(stage.from_step, SHORTEST_PROMPT, config.data.max_response_length)


def _rows(files: Any, most: int) -> int | None:
    """Rows of the data files, at most so many if that is positive; `None` where a file is not there."""
    paths = paths_of(files)
    if not all(map(os.path.exists, paths)):
        return None
    rows = sum(map(row_count, paths))
    return min(rows, most) if most > 0 else rows


def _steps(config: DictConfig) -> int | None:
    trainer, data = config.trainer, config.data
    if trainer.total_training_steps is not None:
        return trainer.total_training_steps
    prompts = _rows(data.train_files, data.train_max_samples)
    return None if prompts is None else prompts // data.train_batch_size * trainer.total_epochs


def _validations(steps: int | None, test_freq: int, before: bool) -> int | None:
    """Every `test_freq` steps and after the last one, as verl does."""
    if steps is None:
        return None
    return int(before) + (-(-steps // test_freq) if test_freq > 0 else 0)


def _model(config: DictConfig) -> tuple[ModelShape | None, str]:
    model = config.actor_rollout_ref.model
    file = local_config(str(model.path))
    if file is None:
        return None, (
            "sizes are not known, heads, context and LoRA not checked: it is not on this machine, and a plan "
            "downloads nothing"
        )
    try:
        return measure(file.parent, bool(model.get("trust_remote_code"))), ""
    except ModelShapeError as error:
        return None, f"sizes are not known: {error}"


def _memory(config: DictConfig, settings: SPOSettings, model: ModelShape) -> MemoryEstimate:
    actor, rollout, node = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.actor_rollout_ref
    tokens = actor.ppo_max_token_len_per_gpu
    if not actor.use_dynamic_bsz:
        rows = actor.ppo_micro_batch_size_per_gpu
        tokens = rows * (config.data.max_prompt_length + config.data.max_response_length)
    rank, targets = node.model.lora_rank, node.model.target_modules
    adapters = None
    if rank > 0:
        adapters = adapter_parameters(model, targets if isinstance(targets, str) else list(targets), rank)
    return estimate_memory(
        model,
        MemoryOptions(
            ranks=config.trainer.n_gpus_per_node * config.trainer.nnodes,
            tokens=tokens,
            trained_parameters=adapters,
            gradient_checkpointing=node.model.enable_gradient_checkpointing,
            keeps_parameters=not actor.fsdp_config.param_offload,
            keeps_optimizer=not actor.fsdp_config.optimizer_offload,
            tensor_parallel=rollout.tensor_model_parallel_size,
            critic=settings.method == "ppo",
            shards_on_host=actor.fsdp_config.get("offload_policy", False),
        ),
    )


def main() -> None:
    """Print the plan of a configuration."""
    from recipe.spo.main_spo import start

    # Nothing is run, so nothing is logged: Hydra shall leave no folder behind.
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    start(show)


def show(config: DictConfig) -> None:
    """Check the settings of a composed configuration and print its plan."""
    from recipe.spo.main_spo import refuse
    from recipe.spo.plan_table import print_plan
    from recipe.spo.preflight import PreflightError, check_settings
    from recipe.spo.reader import SettingsError

    try:
        settings = check_settings(config)
        plan = make_plan(config, settings)
    except (PreflightError, SettingsError) as error:
        refuse(error)
    print_plan(config, settings, plan)


if __name__ == "__main__":
    main()
