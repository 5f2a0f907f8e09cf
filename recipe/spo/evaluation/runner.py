"""One evaluation from prompts to its result file, chunk by chunk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.grading import Grader
from recipe.spo.evaluation.prompts import Prompt
from recipe.spo.evaluation.protocol import Protocol
from recipe.spo.evaluation.result import summarise
from recipe.spo.evaluation.sampling import Response, Sampler
from recipe.spo.evaluation.store import RESULT, Store, write_json

GRADING_THREADS = 4
#: Told after each chunk: questions that are done, and how many of their responses are correct.
Progress = Callable[[int, float], None]


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the token ids: of the data, the chat template and the tokenizer at once."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(repr((prompt.question.id, prompt.token_ids)).encode())
    return digest.hexdigest()


class Evaluation:
    """An evaluation in its folder.

    Args:
        prompts: what is asked; the order and `batch` fix what stands in which chunk.
        protocol: how responses are drawn.
        batch: questions a chunk.
        store: where finished chunks are kept.
        make_sampler: builds the sampler; called only if a chunk is missing.
        grader: grades a response.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        protocol: Protocol,
        batch: int,
        store: Store,
        make_sampler: Callable[[], Sampler],
        grader: Grader,
    ) -> None:
        self.chunks = [prompts[begin : begin + batch] for begin in range(0, len(prompts), batch)]
        self.protocol = protocol
        self.store = store
        self._make_sampler = make_sampler
        self._grade = grader

    @property
    def done(self) -> int:
        """Questions in finished chunks."""
        return sum(len(part) for number, part in enumerate(self.chunks) if self.store.has_chunk(number))

    def run(self, progress: Progress = lambda questions, correct: None) -> None:
        """Sample and grade the chunks that are missing; an interruption loses no finished one.

        Raises:
            EvaluationError: the grader failed on a response, or a chunk's file is damaged.
        """
        sampler = None
        for number, part in enumerate(self.chunks):
            if self.store.has_chunk(number):
                rows = self.store.read_chunk(number)
            else:
                sampler = sampler or self._make_sampler()
                started = time.monotonic()
                rows = self._rows(part, sampler)
                self.store.write_chunk(number, rows)
                self.store.add_timing(number, time.monotonic() - started, sum(row["tokens"] for row in rows))
            progress(len(part), sum(row["score"] for row in rows))

    def result(self, ks: Sequence[int]) -> dict[str, Any]:
        """Write `responses.parquet` and `result.json`, and return what the latter holds."""
        rows = [row for number in range(len(self.chunks)) for row in self.store.read_chunk(number)]
        self.store.merge(len(self.chunks))
        found = summarise(rows, self.protocol.samples, ks, self.protocol.seed)
        result = {"run": self.store.fingerprint, **found}
        write_json(self.store.folder / RESULT, result)
        return result

    def _rows(self, part: Sequence[Prompt], sampler: Sampler) -> list[dict[str, Any]]:
        roomy = [prompt for prompt in part if prompt.budget > 0]
        drawn = dict(zip((prompt.question.id for prompt in roomy), sampler.sample(roomy), strict=True))
        nothing = [Response("", (), False)] * self.protocol.samples
        responses = [
            (prompt, sample, response)
            for prompt in part
            for sample, response in enumerate(drawn.get(prompt.question.id, nothing))
        ]
        # Threads, since graders of mathematics wait for processes of their own.
        with ThreadPoolExecutor(GRADING_THREADS) as threads:
            return list(threads.map(lambda response: self._row(*response), responses))

    def _row(self, prompt: Prompt, sample: int, response: Response) -> dict[str, Any]:
        question = prompt.question
        try:
            verdict = self._grade(question.data_source, response.text, question.truth, response.finished)
        except Exception as error:  # whatever a grader raises, it is the data or the grader that is wrong
            raise EvaluationError(f"the grader failed on {question.id}: {one_line(error)}") from error
        return {
            "question_id": question.id,
            "question_digest": question.digest,
            "data_source": question.data_source,
            "ground_truth": question.truth,
            "prompt": prompt.text,
            "prompt_tokens": len(prompt.token_ids),
            "sample": sample,
            "response": response.text,
            "token_ids": list(response.token_ids),
            "log_probs": None if response.log_probs is None else list(response.log_probs),
            "tokens": len(response.token_ids),
            "finished": response.finished,
            "reason": str(verdict.reason),
            "answer": verdict.answer,
            "score": verdict.score,
        }
