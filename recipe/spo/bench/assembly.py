"""A bench of a model and a data set, from the command's options."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from recipe.spo.bench.footprint import check_gradient
from recipe.spo.bench.methods import Method
from recipe.spo.bench.problem import Problem
from recipe.spo.bench.rolling import Sampling
from recipe.spo.bench.run import Bench, Settings
from recipe.spo.bench.store import Part
from recipe.spo.bench.suite import Suite
from recipe.spo.evaluation import grading, models, sampling
from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.grading import Grader
from recipe.spo.evaluation.prompts import Prompt, load_tokenizer, render
from recipe.spo.evaluation.protocol import Protocol
from recipe.spo.evaluation.questions import Question, data_digest, read_questions
from recipe.spo.evaluation.runner import prompts_digest
from recipe.spo.evaluation.store import check_folder
from recipe.spo.rollout.ending import at_texts, eos_token_ids


def assemble(
    arguments: argparse.Namespace, suite: Suite, methods: Sequence[Method], told: Callable[[int], None]
) -> tuple[Callable[[], Bench], dict[str, Any]]:
    """What opens the bench in its folder, and what its numbers depend on; nothing is written yet.

    Args:
        arguments: of the command.
        suite: sizes of the methods.
        methods: made of it.
        told: called now and then with the tokens that were generated since.

    Raises:
        EvaluationError: model, data or grader cannot be used; the message names the option and the file.
    """
    if arguments.dtype not in sampling.DTYPES:
        raise EvaluationError(f"--dtype {arguments.dtype} must be one of {', '.join(sampling.DTYPES)}")
    check_folder(arguments.out)
    sampling.Engine("auto", arguments.tensor_parallel_size, arguments.gpu_memory_utilization)
    questions = read_questions(arguments.data, arguments.split, arguments.questions)
    grader, grader_fingerprint = _grader(arguments, questions)
    if len(questions) < arguments.questions:
        raise EvaluationError(f"--questions {arguments.questions}: {arguments.data} holds {len(questions)} only")
    model = models.find_model(arguments.model)
    engine = sampling.Engine(
        sampling.engine_dtype(arguments.dtype, model),
        arguments.tensor_parallel_size,
        arguments.gpu_memory_utilization,
        log_probs=True,
    )
    if not arguments.no_gradient:
        check_gradient(model, sum(method.gradient for method in methods))
    tokenizer = load_tokenizer(model.folder, None)
    limit = model.context_limit
    protocol = Protocol(
        samples=1,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        max_context=limit or 2**20,
        max_new_tokens=arguments.max_new_tokens,
        seed=arguments.seed,
    )
    prompts = render(questions, tokenizer, protocol)
    context = max(len(prompt.token_ids) for prompt in prompts) + arguments.max_new_tokens
    if limit is not None and context > limit:
        raise EvaluationError(
            f"--max-new-tokens {arguments.max_new_tokens} and the longest prompt need {context} tokens, but "
            f"{model.name} was made for {limit}"
        )
    parameters = {"temperature": arguments.temperature, "top_p": arguments.top_p, "top_k": arguments.top_k}
    stop = list(arguments.stop)
    settings = Settings(
        arguments.seed,
        arguments.responses,
        arguments.truth,
        arguments.tolerance,
        arguments.mask_threshold,
        arguments.chunk,
    )
    fingerprint = {
        "model": {"name": model.name, "sha256": model.digest()},
        "sampling": {**parameters, "stop": stop, "max_new_tokens": arguments.max_new_tokens},
        "settings": {
            name: value for name, value in dataclasses.asdict(settings).items() if name not in ("mask_threshold",)
        },
        # whose probabilities mask, cut and share continuations: those after temperature, top-p and top-k
        "engine": {**engine.fingerprint(), "log_probs": "processed"},
        "grader": grader_fingerprint,
    }
    of_methods = {
        **fingerprint,
        "methods": {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(suite).items()},
        "thresholds": {"cut": arguments.cut_threshold, "mask": arguments.mask_threshold},
        "gradient": None if arguments.no_gradient else _projection(),
    }
    of_questions = {
        "questions": len(questions),
        "sha256": data_digest(questions),
        "prompts_sha256": prompts_digest(prompts),
    }

    def client() -> Any:
        from recipe.spo.bench.vllm_client import VllmClient

        return VllmClient(model.folder, engine, context, arguments.seed, told)

    def gradient() -> Any:
        from recipe.spo.bench.policy_gradient import PolicyGradient

        return PolicyGradient(model.folder, arguments.temperature)

    problems = [_problem(prompt, grader, tokenizer, stop) for prompt in prompts]
    drawing = Sampling(
        {**parameters, "stop": stop} if stop else parameters,
        _eos_ids(model.folder, tokenizer),
        arguments.cut_threshold,
        tokenizer.decode,
        at_texts(stop, partial(tokenizer.decode, skip_special_tokens=True)),
    )

    def opened() -> Bench:
        truth, rollouts = Part(arguments.out / "truth", fingerprint), Part(arguments.out / "rollouts", of_methods)
        differentiable = None if arguments.no_gradient else gradient
        return Bench(problems, methods, settings, drawing, truth, rollouts, client, differentiable)

    return opened, {"data": of_questions, **of_methods}


def _grader(arguments: argparse.Namespace, questions: Sequence[Question]) -> tuple[Grader, dict[str, Any]]:
    name = arguments.grader or grading.DEFAULT
    options = grading.grader_options(arguments.task, grading.DEFAULT_MATH_GRADER)
    grader, fingerprint = grading.load_grader(name, options)
    if name == grading.DEFAULT and arguments.task is None:
        grading.check_sources(questions)
    grading.check_truths(questions, grader)
    return grader, fingerprint


def _projection() -> dict[str, Any]:
    """What gradients depend on beside the policy."""
    from importlib import metadata

    return {"projection": "count sketch", "torch": metadata.version("torch")}


def _problem(prompt: Prompt, grader: Grader, tokenizer: Any, stop: Sequence[str]) -> Problem:
    question = prompt.question

    @lru_cache(maxsize=100_000)
    def score(response_ids: tuple[int, ...]) -> float:
        text = tokenizer.decode(list(response_ids), skip_special_tokens=True)
        for end in stop:  # as training grades
            text = text.partition(end)[0]
        try:
            return float(grader(question.data_source, text, question.truth, True).score)
        except Exception as error:  # whatever a grader raises, it is the data or the grader that is wrong
            raise EvaluationError(f"the grader failed on {question.id}: {one_line(error)}") from error

    return Problem(question.id, prompt.token_ids, prompt.budget, lambda ids: score(tuple(ids)), data_digest([question]))


def _eos_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Tokens at which the engine ends a response.

    Raises:
        EvaluationError: the model names none.
    """
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:  # the file may be absent; then the tokenizer's token ends responses
        generation = None
    try:
        return eos_token_ids(tokenizer, generation)
    except ValueError as error:
        raise EvaluationError(f"{folder}: {one_line(error)}") from error
