"""What a grader says of one response, the same for training, validation and evaluation.

The rules that all graders share:

* The response is graded, never the prompt. Of a response that thinks in `<think>...</think>`, what
  follows the last `</think>` is graded; the thoughts are not, nor is what follows a `<think>` that
  never ends. Of a longer response its last 400,000 characters are.
* A response that ran out of budget is `UNFINISHED` whatever its text says.
* An answer counts where the response marks it (`####`, `\\boxed`), nowhere else.
* **Two answers**: the final statement is the last paragraph with a marked answer (paragraphs stand
  between blank lines). If it marks answers of different value, the response is `AMBIGUOUS`. Answers
  that are marked in earlier paragraphs are steps on the way and do not count.
* A mark with nothing in it (`\\boxed{}`, a `####` before a heading) marks no answer. An answer that
  is marked and cannot be read (a box that never closes or holds more than 1,000 characters; after `####`
  a number like `12,34`, two numbers, a sum, `18k`) is `NO_ANSWER` alone, and `AMBIGUOUS` beside another
  one in the final statement.
* `TIMEOUT` is a comparison that took too long or too much memory, or whose processes died, three of them. A
  comparison may compute for 1.5 s and take 4.5 s on the clock; see `pool` for what is not counted.
* Only `CORRECT` earns 1; everything else earns 0. No verdict is negative (the authors take 2 points
  off for a second `####`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a response earns what it earns."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNFINISHED = "unfinished"
    AMBIGUOUS = "ambiguous"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grader's verdict.

    Attributes:
        reason: why.
        answer: the answer that was found, in a form in which equal answers vote alike; "" if none.
    """

    reason: Reason
    answer: str = ""

    @property
    def score(self) -> float:
        """1.0 if correct, else 0.0."""
        return float(self.reason is Reason.CORRECT)

    def as_reward(self) -> dict[str, float | str]:
        """The verdict as verl takes it from a reward function.

        `pred` is what verl's majority vote counts; verl averages the numbers over a validation.
        """
        return {
            "score": self.score,
            "acc": self.score,
            "pred": self.answer,
            "reason": str(self.reason),
            **{f"is_{reason}": float(self.reason is reason) for reason in Reason if reason is not Reason.CORRECT},
        }
