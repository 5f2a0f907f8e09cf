"""What ends a response: EOS, or a text of `algorithm.spo.stop`."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

#: Token ids of a response -> its length if it ends there; else None.
EndRule = Callable[[Sequence[int]], int | None]


def eos_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Every token id at which the engine ends a response.

    Raises:
        ValueError: neither the tokenizer nor the generation configuration names one.
    """
    found: set[int] = set()
    for source in (tokenizer, generation_config):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            found.update(ids if isinstance(ids, list | tuple) else [ids])
    if not found:
        raise ValueError("neither the tokenizer nor generation_config.json names an EOS token")
    return frozenset(int(i) for i in found)


def at_texts(texts: Sequence[str], decode: Callable[[list[int]], str]) -> EndRule | None:
    """End a response right after the token that completes the first of some texts.

    vLLM looks for them in what one request samples. A tree's or chain's response is sampled in several, so whole
    responses are looked at here: where one ends must not depend on where segments do.

    Args:
        texts: none is empty.
        decode: token ids to text.

    Returns:
        The rule; `None` if there are no texts.
    """
    if not texts:
        return None

    def rule(response_ids: Sequence[int]) -> int | None:
        def holds(length: int) -> bool:
            decoded = decode(list(response_ids[:length]))
            return any(text in decoded for text in texts)

        whole = len(response_ids)
        return bisect.bisect_left(range(whole), True, key=holds) if holds(whole) else None

    return rule
