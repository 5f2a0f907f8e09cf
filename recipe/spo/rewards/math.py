r"""Grader for MATH and its like: the content of the final `\boxed{...}` against the right answer.

What counts as equal is written down in `equality` (lists, brackets, words), `plain_number` (units, percent,
bases, rounding) and `algebra` (what math-verify is asked). On top of the rules that all graders share
(`verdict`), for boxes of the final statement that differ:

* taken together as a list they are correct if the right answer is that list (`x=1` boxed, `x=2` boxed);
* else, if they are equal in value, they are one answer in several forms;
* else the response is ambiguous, even if one of them is right.

Most answers are decided here. Only expressions that need algebra go to a grader process (`pool`).
"""

from __future__ import annotations

from collections.abc import Sequence

from recipe.spo.rewards import minerva
from recipe.spo.rewards.answers import read, vote
from recipe.spo.rewards.equality import same
from recipe.spo.rewards.marked import boxes, conclusion, final_statement
from recipe.spo.rewards.pool import GraderPool, Task, shared_pool
from recipe.spo.rewards.verdict import Reason, Verdict

GRADERS = ("math-verify", "minerva")
#: Different boxes in a final statement; more are a list that nobody asked for.
MAX_BOXES = 12


def grade(response: str, truth: str, grader: str = "math-verify", pool: GraderPool | None = None) -> Verdict:
    """Grades a response.

    Args:
        response: any text; none raises, and none takes more than 5 seconds once a grader process is there and
            free for it (see `pool`).
        truth: the right answer in LaTeX, without box.
        grader: "math-verify", or "minerva" for parity with the reference (see `minerva`).
        pool: the grader processes; by default those that this process shares.

    Returns:
        The verdict; its answer is in a form in which equal answers vote alike (`answers.vote`).

    Raises:
        ValueError: the ground truth is empty, or there is no such grader.
    """
    return grade_many([(response, truth)], grader, pool)[0]


def grade_many(
    pairs: Sequence[tuple[str, str]],
    grader: str = "math-verify",
    pool: GraderPool | None = None,
    progress: bool = False,
) -> list[Verdict]:
    """Grades many responses, on all grader processes.

    Args:
        pairs: responses, each with the right answer.
        grader: see `grade`.
        pool: see `grade`.
        progress: show a progress bar.

    Returns:
        Their verdicts, in the same order.

    Raises:
        ValueError: a ground truth is empty, or there is no such grader.
    """
    if grader not in GRADERS:
        raise ValueError(f"grader {grader!r} is not known; there are {', '.join(GRADERS)}")
    prepare = _by_minerva if grader == "minerva" else _by_rule
    found = [prepare(response, truth) for response, truth in pairs]
    tasks = [task for _, task in found if task]
    if len(tasks) == 1 and not progress:
        said = [(pool or shared_pool()).run(tasks[0])]
    else:
        said = (pool or shared_pool()).run_many(tasks, progress) if tasks else []
    answers = iter(said)
    return [verdict if task is None else _judged(next(answers), verdict) for verdict, task in found]


def _judged(said: str, verdict: Verdict) -> Verdict:
    reason = Reason(said)
    return Verdict(reason, "" if reason is Reason.AMBIGUOUS else verdict.answer)


def _by_rule(response: str, truth: str) -> tuple[Verdict, Task | None]:
    """Decides what needs no algebra; else gives the task that decides, and the answer with it."""
    gold = read(_checked(truth))
    text = conclusion(response)
    marked = final_statement(text, boxes(text))
    if not any(box.text for box in marked):
        return Verdict(Reason.NO_ANSWER), None
    if any(box.text is None for box in marked):
        return Verdict(Reason.AMBIGUOUS), None
    written = dict.fromkeys(box.text for box in marked)
    if len(written) > MAX_BOXES:
        return Verdict(Reason.AMBIGUOUS), None
    forms = {}
    for text in written:
        answer = read(text)
        forms.setdefault(vote(answer), (text, answer))
    raw = tuple(text for text, _ in forms.values())
    answers = [answer for _, answer in forms.values()]
    if len(answers) == 1:
        equal = same(gold, answers[0], _undecided)
        voted = next(iter(forms))
        if equal is not None:
            return Verdict(Reason.CORRECT if equal else Reason.WRONG, voted), None
        return Verdict(Reason.WRONG, voted), Task("math-verify", raw, truth)
    together = read(",".join(raw))
    listed = same(gold, together, _undecided)
    if listed:
        return Verdict(Reason.CORRECT, vote(together)), None
    differ = [same(answers[0], other, _undecided) for other in answers[1:]]
    if listed is False and False in differ:
        return Verdict(Reason.AMBIGUOUS), None
    return Verdict(Reason.WRONG, vote(answers[-1])), Task("math-verify", raw, truth)


def _by_minerva(response: str, truth: str) -> tuple[Verdict, Task | None]:
    _checked(truth)
    found = minerva.extract(response)
    if not found:
        return Verdict(Reason.NO_ANSWER), None
    voted = vote(read(found[-1]))
    if minerva.same_without_algebra(found, truth):
        return Verdict(Reason.CORRECT, voted), None
    return Verdict(Reason.WRONG, voted), Task("minerva", (found[-1],), truth)


def _checked(truth: str) -> str:
    if not truth.strip():
        raise ValueError(f"ground truth {truth!r} is empty; prepare the data again")
    return truth


def _undecided(*_: str) -> None:
    return None
