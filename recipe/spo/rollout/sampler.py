"""The only caller of verl's rollout servers: what a request asks for and what ended its segment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recipe.spo.rollout.ending import EndRule
from recipe.spo.tree import Node


class LLMClient(Protocol):
    """What samples for us: `recipe.spo.compat.llm_client.TreeClient`, or a script in the tests."""

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any: ...


class SamplingError(RuntimeError):
    """The server gave back something that cannot be a segment."""


@dataclass(slots=True)
class Sampler:
    """Samples segments of one tree; every request carries the tree's id, so that all of them reach
    one server and share its prefix cache.

    Attributes:
        client: the tree's client.
        request_id: the tree's id.
        sampling_params: temperature, top_p, top_k and so on, for every segment alike.
        eos_ids: token ids that end a response.
        seed: with a number, every request gets a seed of its own from (seed, context, path); for tests
            and debugging. `None`, the default, sets none: vLLM samples requests with a seed one by one.
        prompt_length: tokens of the prompt that every context begins with; needed by `end_rule`.
        end_rule: what ends a response but EOS.
        prompt_tokens: tokens of the contexts asked for so far.
        cached_tokens: those of them that the server found in its prefix cache.
        min_global_steps: oldest weights that a segment was sampled with (verl's step number).
        max_global_steps: newest weights that a segment was sampled with.
    """

    client: LLMClient
    request_id: str
    sampling_params: Mapping[str, Any]
    eos_ids: frozenset[int]
    seed: int | None = None
    prompt_length: int = 0
    end_rule: EndRule | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    min_global_steps: int | None = None
    max_global_steps: int | None = None

    async def sample(self, context_ids: Sequence[int], max_tokens: int, path: tuple[int, ...]) -> Node:
        """Sample one segment.

        Args:
            context_ids: prompt and response tokens so far.
            max_tokens: most tokens of the segment.
            path: where the segment stands in its tree or chain.

        Returns:
            A node without children; `finished` if the policy ended the response in this segment.

        Raises:
            SamplingError: no token, no log-probabilities, or an aborted request.
        """
        params = {**self.sampling_params, "max_tokens": max_tokens, "logprobs": True}
        if self.seed is not None:
            params["seed"] = derived_seed(self.seed, tuple(context_ids), path)
        output = await self.client.generate(self.request_id, prompt_ids=list(context_ids), sampling_params=params)
        token_ids = [int(token) for token in output.token_ids]
        if output.stop_reason == "aborted" or not token_ids:
            raise SamplingError(f"segment {path}: the server returned no token (stop reason {output.stop_reason})")
        if output.log_probs is None or len(output.log_probs) != len(token_ids):
            raise SamplingError(f"segment {path}: {len(token_ids)} tokens without their log-probabilities")
        self._account(len(context_ids), output.extra_fields)
        # verl reports "completed" for a stop and for a spent budget alike, so look at the tokens. EOS
        # may be the last token of the budget; fewer tokens than asked for means a stop sequence.
        finished = token_ids[-1] in self.eos_ids or len(token_ids) < max_tokens
        if self.end_rule is not None:
            response_ids = [*context_ids[self.prompt_length :], *token_ids]
            end = self.end_rule(response_ids)
            if end is not None:
                del token_ids[len(token_ids) - (len(response_ids) - end) :]
                finished = True
        return Node(token_ids=token_ids, log_probs=list(output.log_probs)[: len(token_ids)], finished=finished)

    def _account(self, context_tokens: int, extra_fields: Mapping[str, Any]) -> None:
        self.prompt_tokens += context_tokens
        self.cached_tokens += extra_fields.get("num_cached_tokens") or 0
        step = extra_fields.get("global_steps")
        if step is not None:
            self.min_global_steps = step if self.min_global_steps is None else min(self.min_global_steps, step)
            self.max_global_steps = step if self.max_global_steps is None else max(self.max_global_steps, step)


def derived_seed(*parts: object) -> int:
    """A 31-bit seed that depends on all of its parts and is the same in every process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
