"""verl's entry to all graders: the same ones serve training, validation and evaluation.

A row's `data_source` says which grader; `reward.custom_reward_function.reward_kwargs` may set

    task=gsm8k|math|point24      for data of your own, whatever its `data_source`
    grader=math-verify|minerva   for task math (minerva: parity with the reference, see `minerva`)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from data_prep.names import AIME24, ARITHMETIC, GSM8K, MATH, MATH500, POINT24
from recipe.spo.rewards import gsm8k, math, point24
from recipe.spo.rewards.verdict import Reason, Verdict

#: Grades a response against the ground truth.
Grader = Callable[[str, str], Verdict]

TASKS = ("gsm8k", "math", "point24")
DATA_SOURCES = {GSM8K: "gsm8k", ARITHMETIC: "gsm8k", MATH: "math", MATH500: "math", AIME24: "math", POINT24: "point24"}


def grader_for(data_source: str, task: str | None = None, grader: str = "math-verify") -> Grader:
    """Finds the grader of a data source.

    Args:
        data_source: as in the data's column of that name.
        task: one of `TASKS`, to be used instead of what the data source says.
        grader: "math-verify" or "minerva"; for task math.

    Returns:
        A function of a response and its ground truth.

    Raises:
        ValueError: the data source, task or grader is not known.
    """
    task = task or DATA_SOURCES.get(data_source)
    if task is None:
        known = ", ".join(DATA_SOURCES)
        raise ValueError(
            f"no grader is known for data source {data_source!r}; known are {known}. For data of your own "
            f"set reward.custom_reward_function.reward_kwargs.task to one of {', '.join(TASKS)}"
        )
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not known; there are {', '.join(TASKS)}")
    if grader not in math.GRADERS:
        raise ValueError(f"grader {grader!r} is not known; there are {', '.join(math.GRADERS)}")
    if task == "math":
        return partial(math.grade, grader=grader)
    return {"gsm8k": gsm8k.grade, "point24": point24.grade}[task]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    task: str | None = None,
    grader: str = "math-verify",
    **kwargs: Any,
) -> dict[str, float | str]:
    """Grades a response; verl's custom reward function.

    Args:
        data_source: which data the question is of.
        solution_str: the response, without the prompt. Any text is graded, none raises.
        ground_truth: the right answer, as the task writes it.
        extra_info: `finished`, if it is there and false, says that the response ran out of budget; `stop` holds
            the texts that end a response: what is graded ends before the first of them.
        task: see `grader_for`.
        grader: see `grader_for`.
        **kwargs: not used; part of verl's signature.

    Returns:
        The verdict as verl takes it (`Verdict.as_reward`).

    Raises:
        ValueError: the data source, task or grader is not known, or the ground truth is none.
    """
    grade = grader_for(data_source, task, grader)
    extra_info = extra_info or {}
    if not extra_info.get("finished", True):
        return Verdict(Reason.UNFINISHED).as_reward()
    for stop in extra_info.get("stop", ()):
        solution_str = solution_str.partition(stop)[0]
    return grade(solution_str, ground_truth).as_reward()
