"""Prompt styles: what a problem looks like when the policy reads it.

* `chat`: the question and an instruction on the form of the answer, for the model's own chat template.
* `rho`: the complete text that the authors' rho-1.1B and Qwen2.5 base runs prompt with. It needs a chat template that
  passes a message on unchanged, see `PASS_THROUGH`.
* `r1`: the authors' instruction for DeepSeek-R1-Distill models, whose own chat template adds BOS, the user and
  assistant tokens and `<think>`.

The texts of `rho` and `r1` are the published data format, kept to the letter: a policy trained on another wording
cannot be compared with the authors'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Message = Mapping[str, str]

CHAT, RHO, R1 = TEMPLATES = ("chat", "rho", "r1")

PASS_THROUGH_KEY = "actor_rollout_ref.model.custom_chat_template"
PASS_THROUGH = "{% for m in messages %}{{ m.content }}{% endfor %}"

RHO_PROMPT = "[MATH_TASK] Problem:\n{question}\n\nSolution:"

# Two blanks before "The last line", as published.
R1_INSTRUCTION = (
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
    "following format: '{form}' (without quotes) where ANSWER is just the final number or expression that solves the "
    "problem. Think step by step before answering."
)


@dataclass(frozen=True)
class Wording:
    """What the prompts of one data set say besides the question.

    Attributes:
        chat: Instruction after the question, in style `chat`.
        r1: Instruction of style `r1`, before the question.
        r1_is_system: The instruction stands before the user token rather than in the user's message.
        question_needs_chat: The question alone does not tell the task, so style `rho` includes the instruction.
    """

    chat: str
    r1: str
    r1_is_system: bool = False
    question_needs_chat: bool = False


HASHES = Wording(
    chat='Let\'s think step by step and write the final answer, a number only, after "####" on the last line.',
    r1=R1_INSTRUCTION.format(form="#### ANSWER"),
)
BOXED = Wording(
    chat="Let's think step by step and put the final answer within \\boxed{}.",
    r1=R1_INSTRUCTION.format(form="Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct"),
)


def messages(template: str, question: str, wording: Wording) -> list[Message]:
    """Puts a question into a prompt style.

    Args:
        template: One of `TEMPLATES`.
        question: The problem as the data set words it.
        wording: The data set's instructions.

    Returns:
        The messages of the prompt, the user's last.
    """
    worded = f"{question} {wording.chat}".strip()
    if template == CHAT:
        return [_message("user", worded)]
    if template == RHO:
        asked = worded if wording.question_needs_chat else question
        return [_message("user", RHO_PROMPT.format(question=asked))]
    if wording.r1_is_system:
        return [_message("system", wording.r1), _message("user", question)]
    return [_message("user", f"{wording.r1}\n\n{question}")]


def requirement(template: str) -> str | None:
    """Says what training must be told for a prompt style, if anything."""
    return f"{PASS_THROUGH_KEY}='{PASS_THROUGH}'" if template == RHO else None


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
