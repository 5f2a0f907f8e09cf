"""Where a response is cut into segments.

A response has n >= 1 tokens. A *cut* c, 0 <= c <= n - 1, is the state after the first c response
tokens; c = 0 is the prompt's own state. A segment begins at token c and runs to the next cut, the
last one to the end of the response. Cuts increase strictly. Tokens before the first cut belong to no
segment: their advantage is 0.

Four ways to cut (paper, section 4 and its ablations): at low-probability tokens (SPO-chain), every
so many tokens (SPO-tree), into equal parts, at reasoning steps (VinePPO). The authors' code names a
state by the token before it, b = c - 1, so their -1 is our 0.

Departures from the authors' code: everything here counts the sampled tokens, no text is tokenised
again; equal parts begin at the prompt, so that the first part gets credit too; where VinePPO has more
steps than values it puts the return in place of the missing ones, so that further steps earn 0, while
ours belong to the last segment and share its advantage.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

#: `token_starts` decodes windows of this many new tokens after at least this many known ones.
_BLOCK = 16
_CONTEXT = 8


def low_probability_cuts(log_probs: Sequence[float], threshold: float, interval: int) -> list[int]:
    """Cut before every `interval`-th token that the policy found improbable (paper, section 4.1).

    With L the tokens of probability < threshold, in order, the cuts are L[0], L[interval],
    L[2 * interval], ... So a segment begins with an improbable token and holds exactly `interval`
    of them, the last segment 1 to `interval`. The authors' code does the same, by the
    trainer's probabilities where ours are the sampler's; the paper asks for
    segments with equal numbers of such tokens, which this is for a given number of them a segment.

    Args:
        log_probs: natural-log probability of each response token under the sampling policy, n.
        threshold: in (0, 1], strict: a token of exactly this probability is not improbable. It is
            the comparison of `recipe.spo.rows.probability_mask`, but a parameter of its own.
        interval: improbable tokens a segment, >= 1.

    Returns:
        The cuts; empty if no token is improbable (no segment, nothing to learn).

    Raises:
        ValueError: no tokens, a threshold outside (0, 1], an interval below 1.
    """
    _check_tokens(len(log_probs))
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold of a low probability must be in (0, 1], not {threshold}")
    if interval < 1:
        raise ValueError(f"the interval between cuts must be at least 1 low-probability token, not {interval}")
    return [i for i, log_prob in enumerate(log_probs) if math.exp(log_prob) < threshold][::interval]


def fixed_length_cuts(tokens: int, length: int) -> list[int]:
    """Cut every `length` tokens, beginning at the prompt (paper, section 4.2: SPO-tree's levels).

    Args:
        tokens: n, tokens of the response.
        length: tokens a segment; the last one may be shorter.

    Raises:
        ValueError: no tokens, a length below 1.
    """
    _check_tokens(tokens)
    if length < 1:
        raise ValueError(f"the length of a segment must be at least 1 token, not {length}")
    return list(range(0, tokens, length))


def equal_cuts(tokens: int, parts: int) -> list[int]:
    """Cut into equal parts: the paper's naive partition.

    Where the parts cannot be equal, the earlier ones are one token longer. The first cut is the
    prompt's state; the authors estimate no value there, so that their first quarter earns nothing.

    Args:
        tokens: n, tokens of the response.
        parts: number of segments; with fewer tokens than parts every token is a segment.

    Raises:
        ValueError: no tokens, less than 1 part.
    """
    _check_tokens(tokens)
    if parts < 1:
        raise ValueError(f"a response is cut into at least 1 part, not {parts}")
    parts = min(parts, tokens)
    size, longer = divmod(tokens, parts)
    return [part * size + min(part, longer) for part in range(parts)]


def step_cuts(starts: Sequence[int], step_starts: Sequence[int], max_steps: int | None = None) -> list[int]:
    """Cut where reasoning steps begin (VinePPO; the paper compares with it).

    A token belongs to the step that holds its first character, and a cut stands at the first token
    of each step. A step that has no first character of a token has no cut. Give `visible_starts`
    as `starts` where tokens carry the space before their word, or else the first word of a sentence
    counts to the sentence before.

    Args:
        starts: character offset at which each token begins, n, not decreasing (see `token_starts`).
        step_starts: character offsets at which the steps begin, strictly increasing from 0 (see
            `recipe.spo.steps`).
        max_steps: at most so many segments, further steps join the last one; VinePPO takes at
            most 25.

    Returns:
        The cuts, the first one 0.

    Raises:
        ValueError: no tokens, step offsets that do not increase from 0, `max_steps` below 1.
    """
    _check_tokens(len(starts))
    if not step_starts or step_starts[0] != 0 or any(a >= b for a, b in pairwise(step_starts)):
        raise ValueError(f"steps must begin at increasing offsets from 0, not {list(step_starts)}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"a response has at least 1 step, so max_steps cannot be {max_steps}")
    steps = [bisect_right(step_starts, start) for start in starts]
    return [0, *(i for i in range(1, len(steps)) if steps[i] > steps[i - 1])][:max_steps]


def segments(cuts: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """The half-open token ranges [cut, next cut), the last one up to n.

    Args:
        cuts: strictly increasing, each in 0 .. n - 1; may be empty.
        tokens: n, tokens of the response.

    Raises:
        ValueError: no tokens, cuts that do not increase or are out of range.
    """
    _check_tokens(tokens)
    ranges = list(pairwise([*cuts, tokens]))
    if any(begin < 0 or begin >= end for begin, end in ranges):
        raise ValueError(f"cuts must increase strictly within 0 .. {tokens - 1}, not {list(cuts)}")
    return ranges


def token_starts(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[str, list[int]]:
    """The text of a response, and the character at which each of its tokens begins.

    Nothing is tokenised. Token i begins where the text of the tokens before it stops to agree with
    the whole text. Hence a token that begins inside a character (byte-level tokenizers) begins at
    that character, and a token without text begins where the next text does. A character that no
    token ever finishes counts as done with its first token.

    Only windows are decoded, so the cost is linear in n. It is checked that the windows add up to
    the whole text; for a decoder whose output depends on tokens far away they do not, and then
    every prefix is decoded, which is quadratic.

    Args:
        token_ids: the response's tokens as sampled, n.
        decode: token ids -> text, such as a tokenizer's `decode` with its options bound.

    Returns:
        `decode(token_ids)`, and n offsets into it, not decreasing, from 0; an offset is the length
        of the text for tokens at the end that add no text.

    Raises:
        ValueError: no tokens.
    """
    _check_tokens(len(token_ids))
    text = decode(token_ids)
    starts = _starts_by_windows(token_ids, decode, text)
    if starts is None:
        prefixes = (decode(token_ids[:i]) for i in range(1, len(token_ids)))
        starts = list(accumulate((_agreement(prefix, text) for prefix in prefixes), max, initial=0))
    return text, starts


def visible_starts(text: str, starts: Sequence[int]) -> list[int]:
    """Move each token's start past the white space it begins with, for `step_cuts`.

    A token such as " Then" begins the sentence that "Then" begins. In VinePPO it does so because
    there the space belongs to the new sentence. A token of nothing but white space stays.

    Args:
        text: the response.
        starts: character offset at which each token begins, n, not decreasing.

    Returns:
        n offsets, not decreasing.
    """
    moved = []
    for begin, end in pairwise([*starts, len(text)]):
        word = text[begin:end].lstrip()
        moved.append(end - len(word) if word else begin)
    return moved


def _starts_by_windows(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str], text: str) -> list[int] | None:
    """Offsets found in windows of a few tokens, or `None` if the windows do not make up the text.

    A window begins and ends where no character is unfinished, that is where the text of the tokens so
    far agrees with the whole text to its end. Its first tokens are known already and only give the
    decoder context (many drop a space before the first token); what the others add must be what
    the text goes on with.
    """
    n = len(token_ids)
    starts = [0]  # up to the last clean place, and while a window is read beyond it
    clean = [0]  # places between tokens, 0 .. n, where a window may begin or end
    while clean[-1] < n:
        first = clean[-1]
        left = clean[max(bisect_right(clean, first - _CONTEXT) - 1, 0)]
        known = decode(token_ids[left:first]) if first else ""
        for place in range(first + 1, min(first + _BLOCK, n) + 1):
            window = decode(token_ids[left:place])
            added = window[len(known) :]
            if window.startswith(known) and text.startswith(added, starts[first]):
                end = starts[first] + len(added)
                clean.append(place)
            else:
                end = starts[first] + _agreement(added, text[starts[first] : starts[first] + len(added)])
            starts.append(max(end, starts[-1]))
        if clean[-1] == first:
            return None
        del starts[clean[-1] + 1 :]
    return starts[:-1] if starts[-1] == len(text) else None


def _agreement(part: str, whole: str) -> int:
    """How many characters two texts have in common from their beginning."""
    if whole.startswith(part):
        return len(part)
    return next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), min(len(part), len(whole)))


def _check_tokens(tokens: int) -> None:
    if tokens < 1:
        raise ValueError("a response without tokens cannot be cut into segments")
