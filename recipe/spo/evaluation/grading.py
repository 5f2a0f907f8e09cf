"""Grades responses with the reward function of training, in verl's signature."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.questions import Question
from recipe.spo.rewards.math import GRADERS
from recipe.spo.rewards.score import DATA_SOURCES, TASKS
from recipe.spo.rewards.verdict import Reason, Verdict

#: `(data_source, response, truth, finished) -> Verdict`.
Grader = Callable[[str, str, str, bool], Verdict]

DEFAULT = "recipe.spo.rewards.score:compute_score"
DEFAULT_MATH_GRADER = GRADERS[0]
#: What algebra is decided with: another release may judge an answer differently.
LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy")


def grader_options(task: str | None, math_grader: str) -> dict[str, str]:
    """What the default grader is told beyond its defaults, as verl's `reward_kwargs` would.

    Raises:
        EvaluationError: there is no such task or grader.
    """
    if task is not None and task not in TASKS:
        raise EvaluationError(f"--task {task} must be one of {', '.join(TASKS)}")
    if math_grader not in GRADERS:
        raise EvaluationError(f"--math-grader {math_grader} must be one of {', '.join(GRADERS)}")
    chosen_task = {} if task is None else {"task": task}
    return chosen_task if math_grader == DEFAULT_MATH_GRADER else {**chosen_task, "grader": math_grader}


def load_grader(name: str = DEFAULT, options: Mapping[str, str] | None = None) -> tuple[Grader, dict[str, Any]]:
    """A grader, and what its verdicts depend on, ready for JSON.

    Args:
        name: `module:function`, a reward function in verl's signature.
        options: keyword arguments of the default grader, see `grader_options`.

    Raises:
        EvaluationError: there is no such module or function, or options are given to another grader.
    """
    if options and name != DEFAULT:
        raise EvaluationError(f"--task and --math-grader are options of {DEFAULT}; leave them out with --grader {name}")
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, function_name or "compute_score")
    except Exception as error:  # a module of the user's may raise what it likes
        raise EvaluationError(f"--grader {name}: {one_line(error)}; it is written MODULE:FUNCTION") from error
    depends_on = {
        "function": name,
        "options": dict(options or {}),
        "sha256": _source_digest(module),
        "versions": {library: _version(library) for library in LIBRARIES},
    }
    return reward_function_grader(partial(function, **options) if options else function), depends_on


def check_sources(questions: Sequence[Question]) -> None:
    """Sees that the default grader knows what to do with every question.

    Raises:
        EvaluationError: it does not know a data source.
    """
    for question in questions:
        if question.data_source not in DATA_SOURCES:
            raise EvaluationError(
                f"--data: {question.id} is of data source {question.data_source!r}, for which no grader is known "
                f"(known are {', '.join(DATA_SOURCES)}); choose with --task {'|'.join(TASKS)}, or give your own "
                f"with --grader MODULE:FUNCTION"
            )


def check_truths(questions: Sequence[Question], grade: Grader) -> None:
    """Grades an empty response to every question, so that a wrong answer in the data shows before any sampling.

    Raises:
        EvaluationError: the grader fails on one.
    """
    seen: set[tuple[str, str]] = set()
    for question in questions:
        if (question.data_source, question.truth) in seen:
            continue
        seen.add((question.data_source, question.truth))
        try:
            grade(question.data_source, "", question.truth, True)
        except Exception as error:  # whatever a grader raises, it is the data or the grader that is wrong
            raise EvaluationError(
                f"--data: {question.id} cannot be graded (an empty response was tried): {one_line(error)}"
            ) from error


def reward_function_grader(function: Callable[..., Mapping[str, Any] | float]) -> Grader:
    """A grader from a reward function of verl; it is told `extra_info={"finished": True}`.

    An unfinished response earns nothing whatever it says, so the function is not asked. A function
    that gives no `reason` gets one here. The grader raises EvaluationError if the function gives
    anything but right or wrong: pass@k and maj@k have no meaning for parts of a point.
    """

    def grade(data_source: str, response: str, truth: str, finished: bool) -> Verdict:
        if not finished:
            return Verdict(Reason.UNFINISHED)
        found = function(
            data_source=data_source, solution_str=response, ground_truth=truth, extra_info={"finished": True}
        )
        reward = found if isinstance(found, Mapping) else {"score": found}
        answer = str(reward.get("pred") or "")
        correct = _is_correct(reward)
        if "reason" in reward:
            return Verdict(_reason(reward["reason"], correct), answer)
        if correct:
            return Verdict(Reason.CORRECT, answer)
        return Verdict(Reason.WRONG if answer or "pred" not in reward else Reason.NO_ANSWER, answer)

    return grade


def vote_of(verdict: Verdict) -> str:
    """What a response says in a majority vote: nothing if it is unfinished, ambiguous or has no answer."""
    return verdict.answer if verdict.reason in (Reason.CORRECT, Reason.WRONG, Reason.TIMEOUT) else ""


def _is_correct(reward: Mapping[str, Any]) -> bool:
    name = "acc" if "acc" in reward else "score"
    value = reward.get(name)
    if value not in (0, 1):
        raise EvaluationError(
            f"the reward function gave {name} {value!r}; an evaluation counts right answers and needs 0 or 1 "
            f"(a function of graded rewards says right or wrong as `acc` beside its `score`)"
        )
    return bool(value)


def _reason(text: Any, correct: bool) -> Reason:
    if text not in list(Reason):
        raise EvaluationError(
            f"the reward function gave reason {text!r}; known are {', '.join(Reason)} (or leave `reason` out)"
        )
    if (text == Reason.CORRECT) != correct:
        raise EvaluationError(f"the reward function gave reason {text!r} together with {int(correct)} points")
    return Reason(text)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _source_digest(module: Any) -> str:
    """SHA-256 of the module, with its neighbours if it is one of a package's: graders share their rules."""
    source = inspect.getsourcefile(module)
    if source is None:
        return ""
    own = Path(source)
    files = sorted(own.parent.glob("*.py")) if (own.parent / "__init__.py").exists() else [own]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
