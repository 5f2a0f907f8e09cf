"""A sample of a policy's responses, from what `algorithm.spo.expect_responses` names."""

from __future__ import annotations

import os

from recipe.spo.expected import Sample
from recipe.spo.inputs import PreflightError
from recipe.spo.tree import Node

KEY = "algorithm.spo.expect_responses"


def read_sample(responses: int | str, a_question: int) -> Sample:
    """Responses by question.

    Args:
        responses: tokens of every response, or a parquet file with a row a response: column `tokens` (how many), and
            what an evaluation writes beside it as far as it is there: `question_id`, `token_ids`, `log_probs`.
        a_question: how many responses a question has that is made up of a number, or of lengths alone.

    Raises:
        PreflightError: the file cannot be read, or is no such file.
    """
    if isinstance(responses, int):
        return _of_lengths([responses] * a_question, a_question)
    import pyarrow.parquet as pq

    path = os.path.expanduser(responses)
    if not os.path.exists(path):
        raise PreflightError(f"{KEY}: {path} does not exist; recipe.spo.evaluate writes such a file")
    try:
        known = set(pq.read_schema(path).names)
        wanted = ["tokens", *(name for name in ("question_id", "token_ids", "log_probs") if name in known)]
        rows = pq.read_table(path, columns=wanted).to_pylist()
    except Exception as error:
        raise PreflightError(f"{KEY}: {path} has no readable column `tokens` ({error})") from None
    if not rows or not all(isinstance(row["tokens"], int) and row["tokens"] > 0 for row in rows):
        raise PreflightError(f"{KEY}: {path}: column `tokens` must hold whole numbers of at least 1, one a response")
    if not {"question_id", "token_ids"} <= known:
        return _of_lengths([row["tokens"] for row in rows], a_question)
    groups: dict[str, list[Node]] = {}
    for row in rows:
        groups.setdefault(row["question_id"], []).append(Node(row["token_ids"], row.get("log_probs") or []))
    return Sample(tuple(map(tuple, groups.values())), True, all(row.get("log_probs") for row in rows))


def _of_lengths(lengths: list[int], a_question: int) -> Sample:
    """Responses of which only the lengths are known; two of them share nothing but the prompt."""
    nodes = [Node([number] * length) for number, length in enumerate(lengths)]
    whole = len(nodes) - len(nodes) % a_question
    groups = [tuple(nodes[i : i + a_question]) for i in range(0, whole, a_question)]
    return Sample(tuple(groups) or (tuple(nodes),), False, False)
