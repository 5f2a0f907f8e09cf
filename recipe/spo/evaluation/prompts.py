"""Prompts as token ids, rendered once: what is sampled from is what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.protocol import Protocol
from recipe.spo.evaluation.questions import Question


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model sees it.

    Attributes:
        question: what is asked.
        token_ids: the prompt; sampling continues exactly these.
        text: the same, decoded, for readers of the responses.
        budget: tokens that a response may have; 0 if the prompt leaves no room for one.
    """

    question: Question
    token_ids: tuple[int, ...]
    text: str
    budget: int


def load_tokenizer(folder: Path, chat_template: Path | None) -> Any:
    """The model's tokenizer, with another chat template if one is given.

    Raises:
        EvaluationError: the tokenizer or the template cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers raises many kinds, none of them its own
        raise EvaluationError(f"the tokenizer in {folder} cannot be loaded: {one_line(error)}") from error
    if chat_template is not None:
        try:
            tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"--chat-template {chat_template} cannot be read: {one_line(error)}") from error
    return tokenizer


def template_of(tokenizer: Any, protocol: Protocol) -> str:
    """The chat template that the prompts are rendered with; "" for plain prompts.

    Raises:
        EvaluationError: a chat template is needed and there is none.
    """
    if protocol.prompt == "plain":
        return ""
    if not tokenizer.chat_template:
        raise EvaluationError(
            "the tokenizer has no chat template; give one with --chat-template FILE, or --prompt plain"
        )
    return str(tokenizer.chat_template)


def render(questions: Sequence[Question], tokenizer: Any, protocol: Protocol) -> list[Prompt]:
    """Renders each question once.

    Raises:
        EvaluationError: there is no chat template, or it fails on a question.
    """
    template_of(tokenizer, protocol)
    return [_prompt(question, tokenizer, protocol) for question in questions]


def _prompt(question: Question, tokenizer: Any, protocol: Protocol) -> Prompt:
    try:
        if protocol.prompt == "plain":
            # As a completion endpoint reads text: with the special tokens that the tokenizer adds.
            ids = tokenizer("".join(m["content"] for m in question.messages))["input_ids"]
        else:
            ids = tokenizer.apply_chat_template(
                list(question.messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
    except Exception as error:  # a template may raise what it likes
        raise EvaluationError(f"the prompt of {question.id} cannot be rendered: {one_line(error)}") from error
    ids = tuple(int(token) for token in ids)
    if not ids:
        raise EvaluationError(f"the prompt of {question.id} is empty")
    return Prompt(question, ids, tokenizer.decode(list(ids)), protocol.budget(len(ids)))
