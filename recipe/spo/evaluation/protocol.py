"""How responses are drawn: samples, sampling parameters, budgets, stop strings, seed.

Presets name published protocols, and what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError

PROMPT_STYLES = ("chat", "plain")


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol.

    Attributes:
        samples: responses a question, the n of mean@n.
        temperature: 0 is greedy.
        top_p: nucleus; 1 keeps all tokens.
        top_k: most likely tokens kept; -1 keeps all.
        max_context: tokens of prompt and response together; the prompt counts against it.
        max_new_tokens: tokens of the response.
        stop: texts that end a response, and are cut off it; such a response is finished.
        seed: from it, the question and the sample's number each request's own seed is made.
        prompt: `chat` renders the messages with the chat template; `plain` joins their contents.

    Raises:
        EvaluationError: a value is out of range.
    """

    samples: int
    temperature: float
    top_p: float
    max_context: int
    max_new_tokens: int
    top_k: int = -1
    stop: tuple[str, ...] = ()
    seed: int = 0
    prompt: str = "chat"

    def __post_init__(self) -> None:
        rules = {
            f"--samples {self.samples} must be at least 1": self.samples >= 1,
            f"--temperature {self.temperature} must be between 0 and 5": 0 <= self.temperature <= 5,
            f"--top-p {self.top_p} must be above 0 and at most 1": 0 < self.top_p <= 1,
            f"--top-k {self.top_k} must be -1 (all tokens) or at least 1": self.top_k == -1 or self.top_k >= 1,
            f"--max-context {self.max_context} must be at least 2, a token to read and one to write": (
                self.max_context >= 2
            ),
            f"--max-new-tokens {self.max_new_tokens} must be at least 1": self.max_new_tokens >= 1,
            f"--seed {self.seed} must be at least 0": self.seed >= 0,
            "--stop must not be an empty string": all(self.stop),
            f"--prompt {self.prompt} must be one of {', '.join(PROMPT_STYLES)}": self.prompt in PROMPT_STYLES,
            f"--temperature 0 gives one and the same response {self.samples} times; use --samples 1": (
                self.temperature > 0 or self.samples == 1
            ),
        }
        for problem, good in rules.items():
            if not good:
                raise EvaluationError(problem)

    def budget(self, prompt_tokens: int) -> int:
        """Tokens that a response to a prompt of this length may have; 0 if the prompt fills the context."""
        return max(0, min(self.max_new_tokens, self.max_context - prompt_tokens))

    def as_json(self) -> dict[str, Any]:
        """The protocol, ready for JSON."""
        return {**asdict(self), "stop": list(self.stop)}


def _long_cot(context: int) -> Protocol:
    return Protocol(samples=4, temperature=0.6, top_p=0.95, max_context=context, max_new_tokens=context)


#: The paper's GSM8K protocol has n = 16 itself; its long-CoT protocol drew one sample a question.
PRESETS: Mapping[str, Protocol] = MappingProxyType(
    {
        "greedy": Protocol(samples=1, temperature=0.0, top_p=1.0, max_context=2048, max_new_tokens=2048),
        "gsm8k-paper": Protocol(
            samples=16,
            temperature=0.35,
            top_p=1.0,
            max_context=2047,
            max_new_tokens=1024,
            stop=("\n\n\nProblem:",),  # as in training
        ),
        "long-cot-2k": _long_cot(2048),
        "long-cot-4k": _long_cot(4096),
        "long-cot-32k": _long_cot(32768),
    }
)


def preset(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        EvaluationError: there is none.
    """
    if name not in PRESETS:
        raise EvaluationError(f"--preset {name} is not known; known are {', '.join(PRESETS)}")
    return PRESETS[name]


def default_ks(samples: int) -> list[int]:
    """1, 2, 4, ... and n: the k of pass@k and maj@k unless others are asked for."""
    return sorted({1 << i for i in range(samples.bit_length())} | {samples})


def check_ks(ks: list[int], samples: int) -> list[int]:
    """The k asked for, sorted.

    Raises:
        EvaluationError: one is not between 1 and n.
    """
    for k in ks:
        if not 1 <= k <= samples:
            raise EvaluationError(f"--k {k} must be between 1 and the {samples} samples a question (--samples)")
    return sorted(set(ks))
