"""What ends a response but EOS: texts, wherever segments and cuts are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.inputs import PreflightError, check_stop_texts
from recipe.spo.rollout.ending import at_texts
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import TreeSettings
from recipe.spo.stopping import at_full_length
from recipe.spo.tree import endings

PROMPT = [ord("?")] * 3


def decode(token_ids: list[int]) -> str:
    return "".join(map(chr, token_ids))


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@given(st.text("ab#", max_size=12), st.lists(st.text("ab#", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_response_ends_with_the_token_that_completes_the_first_text(response, texts):
    first = next((n for n in range(len(response) + 1) if any(text in response[:n] for text in texts)), None)
    assert at_texts(texts, decode)(ids(response)) == first


def test_without_texts_there_is_no_rule():
    assert at_texts([], decode) is None


class Writer:
    """Writes the same response in every branch, and goes on as vLLM does, which sees one request at a time."""

    def __init__(self, response: str):
        self.response = ids(response)

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        done = len(prompt_ids) - len(PROMPT)
        assert prompt_ids[len(PROMPT) :] == self.response[:done]
        tokens = self.response[done : done + sampling_params["max_tokens"]]
        return SimpleNamespace(
            token_ids=tokens,
            log_probs=[-float(done + i) for i in range(len(tokens))],
            stop_reason="completed",
            extra_fields={},
        )


@pytest.mark.parametrize("segment_length", [1, 2, 3, 4, 5, 6, 7])
def test_a_text_across_the_end_of_a_segment_ends_the_response(segment_length):
    """Also one that is complete with the last token of a segment: its node is a leaf."""
    sampler = Sampler(
        Writer("one##two##three"),
        "tree",
        {},
        frozenset({0}),
        prompt_length=len(PROMPT),
        end_rule=at_texts(["##"], decode),
    )
    shape = TreeSettings((2, 1, 2), segment_length)
    root = asyncio.run(grow_tree(sampler, PROMPT, shape, 15, at_full_length))
    for response_ids, leaf in endings(root):
        assert (decode(response_ids), leaf.finished) == ("one##", True)
        assert leaf.log_probs[-1] == -4.0 and len(leaf.log_probs) == len(leaf.token_ids)


def test_a_text_that_no_decoded_response_can_hold_is_refused():
    tokenizer = SimpleNamespace(all_special_tokens=["<eos>"])
    check_stop_texts(["###", "\n\n\nProblem:"], tokenizer)
    with pytest.raises(PreflightError, match="algorithm.spo.stop: 'x<eos>' holds the special token '<eos>'"):
        check_stop_texts(["###", "x<eos>"], tokenizer)
