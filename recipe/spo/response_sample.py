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
        return [[made_up(responses, number) for number in range(a_question)]]
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
        nodes = [made_up(row["tokens"], number) for number, row in enumerate(rows)]
        return [nodes[i : i + a_question] for i in range(0, len(nodes) - len(nodes) % a_question, a_question)] or [
            nodes
        ]
    groups: dict[str, list[Node]] = {}
    for row in rows:
        node = Node(row["token_ids"], row.get("log_probs") or [])
        groups.setdefault(row["question_id"], []).append(node)
    return list(groups.values())


def made_up(tokens: int, number: int) -> Node:
    """A response of which only the length is known; two of them share nothing but the prompt."""
    return Node([number] * tokens)
