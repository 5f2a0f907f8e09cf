"""Which tokens end a response."""

from __future__ import annotations

from typing import Any


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
