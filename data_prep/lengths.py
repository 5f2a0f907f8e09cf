"""Length of prompts in a model's own tokens."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import DataError, one_line
from data_prep.templates import RHO, Message


class PromptLengths:
    """Measures prompts as verl does: rendered by the chat template, then tokenised without further special tokens."""

    def __init__(self, path: Path, template: str) -> None:
        """Loads the tokenizer.

        Args:
            path: A Hugging Face model folder; it needs no weights.
            template: The prompt style; `rho` is measured with a chat template that passes messages on unchanged.

        Raises:
            DataError: There is no tokenizer, or it cannot render a chat.
        """
        if not path.is_dir():
            raise DataError(f"--tokenizer {path} is not a folder; give a Hugging Face model folder")
        from transformers import AutoTokenizer  # slow to import

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except Exception as error:  # transformers raises many kinds
            raise DataError(f"--tokenizer {path} holds no tokenizer that loads ({one_line(error)})") from error
        self.passes_through = template == RHO
        if not self.passes_through and not self.tokenizer.chat_template:
            raise DataError(f"--tokenizer {path} has no chat template for the prompts; add one or use --template rho")
        self.origin = {"name": path.resolve().name, "sha256": _hash(path)}

    def __call__(self, prompts: Sequence[Sequence[Message]]) -> list[int]:
        """Gives the number of tokens of each prompt.

        Raises:
            DataError: The chat template refuses a prompt.
        """
        texts = [self._render(prompt) for prompt in prompts]
        return [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []

    def _render(self, prompt: Sequence[Message]) -> str:
        if self.passes_through:
            return "".join(message["content"] for message in prompt)
        try:
            return self.tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template may raise anything
            raise DataError(
                f"the tokenizer's chat template refuses a prompt ({one_line(error)}); choose another --template"
            ) from error


def _hash(folder: Path) -> str:
    """Hashes what makes the tokens: the tokenizer's files and the chat template."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(word in path.name for word in ("token", "vocab", "merges", "chat_template")):
            digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
