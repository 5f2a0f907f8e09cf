"""The text of each sampled token, for whoever looks at a dump without the tokenizer.

The texts of a response's tokens, put together, are its text, but for a first space that some
tokenizers drop. A character that several tokens spell (byte-level tokenizers) is the text of the
last of them; the others have none.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: What a decoder writes for bytes that are no whole character.
UNFINISHED = "\ufffd"


class TokenTexts:
    """Token ids to texts, each id decoded once: a tree repeats its tokens many times.

    Args:
        decode: token ids -> text, such as a tokenizer's `decode` with its options bound.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._known: dict[int, str] = {}

    def of(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token."""
        texts = [self._alone(token) for token in token_ids]
        begin = None
        for position, text in enumerate(texts):
            if UNFINISHED not in text:
                begin = None
                continue
            begin = position if begin is None else begin
            spelled = self._decode(token_ids[begin : position + 1])
            texts[position] = spelled
            texts[begin:position] = [""] * (position - begin)
            if not spelled.endswith(UNFINISHED):
                begin = None
        return texts

    def _alone(self, token: int) -> str:
        """A token's text in the middle of a response: what a second one adds to a first.

        Decoded by itself, a token loses the space before it with some tokenizers.
        """
        if token not in self._known:
            once, twice = self._decode([token]), self._decode([token, token])
            self._known[token] = twice[len(once) :] if twice.startswith(once) else once
        return self._known[token]
