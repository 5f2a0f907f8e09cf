"""Where tokens begin in a response's text, for decoders of every kind."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.spo.partition import (
    segments,
    step_cuts,
    token_starts,
    visible_starts,
)
from recipe.spo.steps import sentence_steps


class Decoder:
    """Tokens are the indices of byte strings; counts the tokens that it has decoded."""

    def __init__(self, pieces: list[bytes]):
        self.pieces, self.decoded = pieces, 0

    @property
    def ids(self) -> list[int]:
        return list(range(len(self.pieces)))

    def __call__(self, ids) -> str:
        self.decoded += len(ids)
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", errors="replace")


class SpaceStripping(Decoder):
    """As sentencepiece: the space before the first word is dropped."""

    def __call__(self, ids) -> str:
        return super().__call__(ids).removeprefix(" ")


class AllSpaceStripping(Decoder):
    def __call__(self, ids) -> str:
        return super().__call__(ids).lstrip()


class ByteFallback(Decoder):
    """As byte fallback: single bytes that do not form valid text become one replacement each."""

    def __call__(self, ids) -> str:
        self.decoded += len(ids)
        text, run = "", b""
        for piece in [*(self.pieces[i] for i in ids), b""]:
            if len(piece) == 1 and piece[0] > 127:
                run += piece
                continue
            try:
                text += run.decode("utf-8")
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            text, run = text + piece.decode("utf-8"), b""
        return text


class Shouting(ByteFallback):
    """The first token of the response makes all that follow upper case."""

    def __call__(self, ids) -> str:
        text = super().__call__(ids)
        return text.upper() if ids[:1] == [0] else text


def split(data: bytes, places) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


def expected_starts(pieces: list[bytes], text: str) -> list[int]:
    """By bytes: which character holds a token's first byte."""
    character = [i for i, c in enumerate(text) for _ in c.encode()] + [len(text)]
    return [character[sum(map(len, pieces[:i]))] for i in range(len(pieces))]


def test_token_starts_of_plain_tokens():
    decoder = Decoder([b"So", b" 1", b"+", b"1", b" =", b" 2", b".\n"])
    assert token_starts(decoder.ids, decoder) == ("So 1+1 = 2.\n", [0, 2, 4, 5, 6, 8, 10])


def test_a_token_within_a_character_begins_at_that_character():
    emoji = "😀".encode()
    decoder = Decoder([b"a", b" " + emoji[:1], emoji[1:2], emoji[2:] + b"b", b"c"])
    assert token_starts(decoder.ids, decoder) == ("a 😀bc", [0, 1, 2, 2, 4])


def test_a_character_that_is_never_finished_counts_from_its_first_token():
    emoji = "😀".encode()
    decoder = Decoder([b"a", emoji[:1], emoji[1:2], b"b", emoji[:1]])
    text, starts = token_starts(decoder.ids, decoder)
    assert text == "a\ufffdb\ufffd"
    assert starts == [0, 1, 2, 2, 3]


def test_a_token_without_text_begins_where_the_text_goes_on():
    decoder = Decoder([b"a", b"", b"b", b""])
    assert token_starts(decoder.ids, decoder) == ("ab", [0, 1, 1, 2])


byte_tokens = st.builds(
    lambda text, places: (text, split(text.encode(), {p for p in places if 0 < p < len(text.encode())})),
    st.text("ab .\né€😀", min_size=1, max_size=40),
    st.sets(st.integers(1, 120), max_size=80),
)


@given(byte_tokens)
def test_token_starts_of_bytes_equal_brute_force(sample):
    text, pieces = sample
    decoder = Decoder(pieces)
    assert token_starts(decoder.ids, decoder) == (text, expected_starts(pieces, text))


@given(st.text("ab .\né€😀", min_size=1, max_size=40))
def test_token_starts_with_byte_fallback_equal_brute_force(text):
    pieces = [bytes([b]) for b in text.encode()]
    decoder = ByteFallback(pieces)
    assert token_starts(decoder.ids, decoder) == (text, expected_starts(pieces, text))


@given(st.lists(st.text(" ab", min_size=1, max_size=3), min_size=1, max_size=60), st.booleans())
def test_leading_space_that_the_decoder_strips_moves_no_token(pieces, strips_all):
    full = "".join(pieces)
    stripped = full.lstrip() if strips_all else full.removeprefix(" ")
    gone = len(full) - len(stripped)
    decoder = (AllSpaceStripping if strips_all else SpaceStripping)([piece.encode() for piece in pieces])
    starts = [max(0, len("".join(pieces[:i])) - gone) for i in range(len(pieces))]
    assert token_starts(decoder.ids, decoder) == (stripped, starts)


def starts_by_definition(decoder: Decoder) -> list[int]:
    """A token begins where the text before it stops to agree with the whole text; never decreasing."""
    text, starts = decoder(decoder.ids), [0]
    for i in decoder.ids[1:]:
        starts.append(max(starts[-1], len(os.path.commonprefix([decoder(decoder.ids[:i]), text]))))
    return starts


some_bytes = st.sampled_from([b"a", b" ", b"\xe2", b"\x82", b"\xac", b"\xf0", b"\x9f", b"\x98", b"\x80"])


@given(st.lists(st.one_of(some_bytes, st.binary(max_size=3)), min_size=1, max_size=80))
def test_bytes_that_are_no_text_give_starts_by_the_definition(pieces):
    decoder = Decoder(pieces)
    assert token_starts(decoder.ids, decoder) == (decoder(decoder.ids), starts_by_definition(decoder))


@given(st.lists(some_bytes, min_size=1, max_size=80))
def test_byte_fallback_that_is_no_text_gives_starts_by_the_definition(pieces):
    decoder = ByteFallback(pieces)
    assert token_starts(decoder.ids, decoder) == (decoder(decoder.ids), starts_by_definition(decoder))


def test_a_decoder_with_long_memory_still_gets_right_starts():
    decoder = Shouting([b"on ", *[b"ab ", *(bytes([b]) for b in "你好".encode())] * 20])
    text = "ON " + "AB 你好" * 20
    assert token_starts(decoder.ids, decoder) == (text, expected_starts(decoder.pieces, text))


@pytest.mark.parametrize("kind", [Decoder, SpaceStripping, ByteFallback])
def test_the_cost_is_linear_for_ordinary_text(kind):
    word = [b" and", b" so", *(bytes([b]) for b in "你好".encode()), b".\n"]
    for n in (900, 3600):
        assert n % len(word) == 0
        decoder = kind(word * (n // len(word)))
        token_starts(decoder.ids, decoder)
        assert decoder.decoded < 25 * n


def test_token_starts_of_a_real_byte_level_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    text = "Déjà vu: ½·x² = 😀👩‍👩‍👧 naïve café. Then 你好 → ∑ 3.14!\n\n" * 3
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=275, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([text], trainer)
    encoding = bpe.encode(text)
    found, starts = token_starts(encoding.ids, bpe.decode)
    assert found == text
    assert starts == [begin for begin, _ in encoding.offsets]
    repeated = [start for start, after in pairwise(starts) if start == after]
    assert {text[start] for start in repeated} >= {"😀", "你"}  # characters of several tokens are in the sample
    cuts = step_cuts(visible_starts(text, starts), sentence_steps(text))
    pieces = [bpe.decode(encoding.ids[begin:end]) for begin, end in segments(cuts, len(starts))]
    assert [piece.split()[0] for piece in pieces] == ["Déjà", "Then"] * 3
