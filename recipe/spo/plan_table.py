"""A plan as a small table."""

from __future__ import annotations

import sys

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from recipe.spo.inputs import paths_of
from recipe.spo.plan import CARDS, Plan, StagePlan
from recipe.spo.settings import SPOSettings

WIDTH = 110


def print_plan(config: DictConfig, settings: SPOSettings, plan: Plan) -> None:
    """Print a plan; everything it counts is an upper bound, and says so."""
    table = Table(
        title="SPO: what this run does (at most, if no response ends early)",
        box=box.SIMPLE,
        width=WIDTH,
        show_header=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column("")
    for name, text in plan_rows(config, settings, plan):
        table.add_row(name, text)
    Console(file=sys.stdout, width=WIDTH, highlight=False, markup=False).print(table)
    sys.stdout.flush()


def plan_rows(config: DictConfig, settings: SPOSettings, plan: Plan) -> list[tuple[str, str]]:
    """The table's rows: what, and how much."""
    trainer, replay, data = config.trainer, settings.replay, config.data
    gpus = trainer.n_gpus_per_node * trainer.nnodes
    where = "the CPU" if trainer.device == "cpu" else f"{gpus} GPU{'s' * (gpus > 1)}"
    rows = [
        ("model", f"{config.actor_rollout_ref.model.path} ({describe_model(plan)})"),
        ("data", ", ".join(paths_of(data.train_files)) or "none"),
        ("runs on", where + (f", {trainer.nnodes} machines" if trainer.nnodes > 1 else "")),
        ("method", describe_rollout(config, settings)),
        *([("responses end", "at EOS, or at " + " or ".join(map(repr, settings.stop)))] if settings.stop else []),
        ("credit", describe_credit(settings)),
        ("questions a step", f"{plan.questions:,}"),
    ]
    for number, stage in enumerate(plan.stages):
        if len(plan.stages) > 1:
            end = plan.stages[number + 1].stage.from_step - 1 if number + 1 < len(plan.stages) else None
            steps = f"{stage.stage.from_step} to {end}" if end else f"from {stage.stage.from_step}"
            rows.append((f"steps {steps}", f"context of {stage.stage.context:,} tokens"))
        rows += stage_rows(plan, stage)
    limits = {"a step": replay.rows_per_step, "a question": replay.rows_per_question}
    at_most = " and ".join(f"{limit:,} rows {of}" for of, limit in limits.items() if limit)
    if at_most:
        rows.append(("replay", f"trains at most {at_most}; rows left over wait {replay.max_age} steps"))
    rows.append(("optimiser steps", f"{plan.optimizer_steps} a step{_in_all(plan.steps, plan.optimizer_steps)}"))
    rows.append(("steps", "not known without the data" if plan.steps is None else f"{plan.steps:,}"))
    if settings.token_budget is not None:
        rows.append(("ends before", f"once {settings.token_budget:,} tokens have been generated for training"))
    rows.append(("validation", describe_validation(plan)))
    rows += memory_rows(config, plan)
    return rows


def stage_rows(plan: Plan, stage: StagePlan) -> list[tuple[str, str]]:
    """Cost of a step in one stage."""
    question, questions = stage.question, plan.questions
    per = "{:,} ({:,} a question)"
    if stage.expected_tokens is None:
        expected = f"not known: {plan.not_expected}"
    else:
        expected = f"about {stage.expected_tokens * questions:,.0f}, for responses as in algorithm.spo.expect_responses"
    return [
        ("responses graded a step", per.format(question.responses * questions, question.responses)),
        ("samples a step", per.format(question.samples * questions, question.samples)),
        ("rows a step", per.format(question.rows * questions, question.rows)),
        ("generated tokens a step", per.format(question.generated_tokens * questions, question.generated_tokens)),
        ("  on average", expected),
        ("trained tokens a step", f"{stage.trained_tokens:,} in {stage.trained_rows:,} rows, before the mask"),
    ]


def describe_model(plan: Plan) -> str:
    if plan.model is None:
        return plan.model_problem
    return f"{plan.model.architecture}, {plan.model.parameters / 1e6:,.1f} M parameters"


def describe_credit(settings: SPOSettings) -> str:
    """Who gives credit, and which tokens train."""
    credit = settings.credit or "the critic, token by token"
    mask = "all tokens train" if settings.mask_threshold is None else f"tokens with p < {settings.mask_threshold} train"
    return f"{credit}; {mask}"


def describe_rollout(config: DictConfig, settings: SPOSettings) -> str:
    """What is sampled for a question."""
    end = f"up to the end of {config.data.max_response_length:,} tokens"
    if settings.context_schedule is not None:
        end += " or the context"
    if settings.chain is not None:
        chain = settings.chain
        return (
            f"chains: {chain.trajectories} responses {end}, cut by {chain.partition}, "
            f"{chain.continuations} continuations from each cut"
        )
    if settings.group is not None:
        return f"{settings.group.responses} whole responses {end}"
    tree = settings.tree_shape
    stages = settings.context_schedule.stages if settings.context_schedule else ()
    shapes = [settings.tree_at(stage.from_step) for stage in stages] or [tree]
    lengths = ", then ".join(dict.fromkeys(" and ".join(map(str, shape.segment_lengths)) or "no" for shape in shapes))
    partition = "" if tree.partition == "fixed_length" else f" or less ({tree.partition})"
    return f"trees {'-'.join(map(str, tree.branch_factors))}: segments of {lengths} tokens{partition}, the last {end}"


def describe_validation(plan: Plan) -> str:
    if plan.validations == 0:
        return "none"
    if plan.validation_responses is None:
        return "not known without the data"
    times = "" if plan.validations is None else f", {plan.validations} times"
    return f"{plan.validation_responses:,} responses, {plan.validation_tokens:,} tokens{times}"


def memory_rows(config: DictConfig, plan: Plan) -> list[tuple[str, str]]:
    """The memory estimate of one GPU, and how it was made."""
    if config.trainer.device == "cpu":
        return [("memory", "not estimated for the CPU; platform=gpu plans for GPUs")]
    if plan.memory is None:
        return [("memory a GPU", f"not estimated: {plan.model_problem}")]
    memory, share = plan.memory, config.actor_rollout_ref.rollout.gpu_memory_utilization
    verdicts = ", ".join(f"{card} GiB card: {'fits' if memory.fits(card, share) else 'too small'}" for card in CARDS)
    return [
        (
            "memory a GPU, training",
            f"about {memory.training:.1f} GiB: weights {memory.weights:.1f}, gradients {memory.gradients:.1f}, AdamW "
            f"{memory.optimizer:.1f}, gathered layers {memory.gathered:.1f}, activations {memory.activations:.1f}, "
            f"logits {memory.logits:.1f}",
        ),
        (
            "memory a GPU, sampling",
            f"vLLM takes {share:.0%} of the card (its weights: {memory.engine_weights:.1f} GiB), the trainer keeps "
            f"{memory.kept_while_sampling:.1f} GiB",
        ),
        ("", f"{verdicts}. An estimate from the model's sizes, not measured: recipe/spo/memory.py"),
    ]


def _in_all(steps: int | None, each: int) -> str:
    return "" if steps is None else f", {steps * each:,} in all"
