"""vLLM as the bench's client: the offline engine in this process, fed with whatever the event loop is waiting for.

What makes two runs alike: requests carry no seed (it halves vLLM's rate on a CPU); instead torch's generator, from
which the engine draws, is seeded and the prefix cache emptied at the beginning of each chunk, and all requests that
can be made are queued before a call, in the order of the event loop, which does not depend on the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.spo.evaluation.sampling import Engine, load_engine

#: Turns of the event loop without a new request after which nothing more can be asked for.
QUIET_TURNS = 50
#: Requests of a call: enough to hide that its last ones run alone, few enough to see it go on.
CALL = 4096


@dataclass(slots=True)
class Sampled:
    """A segment, in the shape of verl's `TokenOutput`."""

    token_ids: list[int]
    log_probs: list[float]
    stop_reason: str
    extra_fields: dict[str, Any] = field(default_factory=dict)


class VllmClient:
    """See `recipe.spo.bench.problem.BenchClient`.

    Args:
        folder: Hugging Face folder of the model.
        engine: settings of the engine; with log-probabilities.
        context: most tokens of prompt and response.
        seed: of the engine.
        told: called after each call of the engine with the tokens that it generated.
    """

    def __init__(
        self, folder: Path, engine: Engine, context: int, seed: int, told: Callable[[int], None] = lambda tokens: None
    ) -> None:
        self._llm = load_engine(folder, engine, context, seed, max_num_seqs=512)
        self._told = told
        self._queue: list[tuple[list[int], dict[str, Any], asyncio.Future[Sampled]]] = []
        self._pump: asyncio.Task[None] | None = None

    def begin(self, seed: int) -> None:
        """See `BenchClient.begin`."""
        import torch

        self._queue, self._pump = [], None
        torch.manual_seed(seed)
        self._llm.reset_prefix_cache()

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Sampled:
        """Sample one segment, together with all others that are waited for."""
        answer: asyncio.Future[Sampled] = asyncio.get_running_loop().create_future()
        self._queue.append((prompt_ids, sampling_params, answer))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        while self._queue:
            seen, quiet = len(self._queue), 0
            while quiet < QUIET_TURNS:
                await asyncio.sleep(0)
                quiet = quiet + 1 if len(self._queue) == seen else 0
                seen = len(self._queue)
            batch, self._queue = self._queue, []
            try:
                found = []
                for begin in range(0, len(batch), CALL):
                    found += self._sample([(ids, params) for ids, params, _ in batch[begin : begin + CALL]])
            except Exception as error:
                for _, _, answer in batch:
                    answer.set_exception(error)
                return
            for (_, _, answer), sampled in zip(batch, found, strict=True):
                if not answer.done():
                    answer.set_result(sampled)
            # let what was answered make its next requests before the queue is looked at
            await asyncio.sleep(0)
            for _ in range(QUIET_TURNS):
                if self._queue:
                    break
                await asyncio.sleep(0)

    def _sample(self, batch: list[tuple[list[int], dict[str, Any]]]) -> list[Sampled]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        parameters = []
        for _, params in batch:
            known = {name: params[name] for name in ("temperature", "top_p", "top_k", "max_tokens")}
            known["top_k"] = max(known["top_k"], 0)
            stop = params.get("stop") or None  # vLLM finds stop texts as it decodes
            parameters.append(SamplingParams(**known, stop=stop, logprobs=0, detokenize=stop is not None))
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=ids) for ids, _ in batch], parameters, use_tqdm=False
        )
        found = []
        for output in outputs:
            (choice,) = output.outputs
            ids = list(choice.token_ids)
            logs = [part[token].logprob for part, token in zip(choice.logprobs, ids, strict=True)]
            aborted = choice.finish_reason not in ("stop", "length")
            found.append(Sampled(ids, logs, "aborted" if aborted else "completed"))
        self._told(sum(len(sampled.token_ids) for sampled in found))
        return found
