"""How much a question costs at most: responses, requests, tokens and rows, by method.

Upper bounds, and exact ones: with a policy that never ends a response (and, where cuts depend on
probabilities or text, the dearest ones) a rollout reaches `generated_tokens`. What a run really costs is less,
because responses end.

Tree with branch factors b, w_d = b_1 * ... * b_d nodes at depth d and segments of m_d tokens:

    w_1 m_1 + ... + w_(D-1) m_(D-1) + w_D (R - m_1 - ... - m_(D-1))

with R the response budget. Where a rule may end a segment early, m_d is the least that it allows: what
an inner segment saves, every leaf below spends again.

Chain with T responses of L tokens, their cuts c and K continuations a cut; the prompt's own state
(c = 0) is continued once, whichever response asks:

    sum over responses of (L + K sum over c > 0 of (R - c)) + K R if the prompt is a cut

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recipe.spo.partition import equal_cuts, fixed_length_cuts
from recipe.spo.settings import ChainSettings, ReplaySettings, SPOSettings, TreeSettings


@dataclass(frozen=True, slots=True)
class QuestionBounds:
    """Most that one question can give.

    Attributes:
        responses: complete responses that are graded: leaves, trajectories and continuations.
        samples: segments of a tree; trajectories and continuations of a chain.
        generated_tokens: all sampled tokens.
        row_lengths: (rows, most response tokens of each), longest first; a tree's rows are its segments.
        row_tokens: response tokens of all rows together.
    """

    responses: int
    samples: int
    generated_tokens: int
    row_lengths: tuple[tuple[int, int], ...]
    row_tokens: int

    @property
    def rows(self) -> int:
        return sum(count for count, _ in self.row_lengths)

    def tokens_of_longest(self, rows: int) -> int:
        """Most response tokens of so many rows of the question."""
        tokens = 0
        for count, length in self.row_lengths:
            taken = min(count, rows)
            tokens, rows = tokens + taken * length, rows - taken
        return min(tokens, self.row_tokens)


def question_bounds(settings: SPOSettings, response_budget: int, step: int = 1) -> QuestionBounds:
    """Bounds of a question whose response may have `response_budget` tokens, in a training step.

    Raises:
        ValueError: the budget leaves nothing for the last level of the tree.
    """
    if settings.chain is not None:
        return chain_bounds(settings.chain, response_budget)
    return tree_bounds(settings.tree_at(step), response_budget)


def tree_bounds(tree: TreeSettings, response_budget: int) -> QuestionBounds:
    """Bounds of one tree (or, with one level, of a group of responses).

    Args:
        tree: its shape.
        response_budget: R, most tokens of a response.

    Raises:
        ValueError: the segments leave nothing of the budget for the last level.
    """
    if sum(tree.segment_lengths) >= response_budget:
        raise ValueError(f"segments of {tree.segment_lengths} tokens leave nothing of {response_budget}")
    shortest = {"fixed_length": None, "low_probability": tree.cut_interval, "lines": 1}[tree.partition]
    inner = [length if shortest is None else min(length, shortest) for length in tree.segment_lengths]
    widths, width = [], 1
    for factor in tree.branch_factors:
        width *= factor
        widths.append(width)
    last = response_budget - sum(inner)
    generated = sum(w * m for w, m in zip(widths, [*inner, last], strict=True))
    # A single inner segment may be longer than in the dearest tree.
    lengths = zip(widths, [*tree.segment_lengths, last], strict=True)
    return QuestionBounds(
        responses=widths[-1],
        samples=sum(widths),
        generated_tokens=generated,
        row_lengths=tuple(sorted(lengths, key=lambda pair: -pair[1])),
        row_tokens=generated,
    )


def chain_bounds(chain: ChainSettings, response_budget: int) -> QuestionBounds:
    """Bounds of one question's chain.

    Args:
        chain: its shape.
        response_budget: R, most tokens of a response.
    """
    others, k, budget = chain.trajectories - 1, chain.continuations, response_budget
    tokens_own, tokens_first, samples_own, samples_first = [], [], [], []
    for length, cuts in _dearest_cuts(chain, budget):
        later = [cut for cut in cuts if cut > 0]
        prompt = k * (len(cuts) - len(later))
        own = length + k * sum(budget - cut for cut in later)
        tokens_own.append(own)
        tokens_first.append(own + prompt * budget)
        samples_own.append(1 + k * len(later))
        samples_first.append(1 + k * len(later) + prompt)
    samples = others * max(samples_own) + max(samples_first)
    return QuestionBounds(
        responses=samples,
        samples=samples,
        generated_tokens=others * max(tokens_own) + max(tokens_first),
        row_lengths=((chain.trajectories, budget),),
        row_tokens=chain.trajectories * budget,
    )


def _dearest_cuts(chain: ChainSettings, budget: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Responses among which the dearest one is: their lengths and cuts."""
    if chain.partition == "equal_parts":
        # A shorter response has earlier cuts, whose continuations are longer.
        yield from ((length, equal_cuts(length, chain.parts)) for length in range(1, budget + 1))
    elif chain.partition == "fixed_length":
        yield budget, fixed_length_cuts(budget, chain.segment_length)
    elif chain.partition == "low_probability":
        # All tokens are improbable but perhaps the first: the prompt's state is paid for once, a cut after
        # one token by every response.
        yield budget, range(0, budget, chain.cut_interval)
        yield budget, range(1, budget, chain.cut_interval)
    else:  # by text, or a rule of one's own: a cut before every token
        yield budget, range(min(budget, chain.max_steps or budget))


def most_trained(bounds: QuestionBounds, questions: int, replay: ReplaySettings) -> tuple[int, int]:
    """Most rows that a step trains, and their response tokens.

    Args:
        bounds: of a question.
        questions: a step.
        replay: limits; rows of earlier steps count to the questions that gave them.
    """
    a_question = min(bounds.rows, replay.rows_per_question or bounds.rows)
    sources = questions * (replay.max_age + 1)
    if replay.rows_per_step is None or replay.rows_per_step >= sources * a_question:
        return sources * a_question, sources * bounds.tokens_of_longest(a_question)
    # The longest rows are spread over the questions, at most `a_question` of each.
    full, rest = divmod(replay.rows_per_step, sources)
    tokens = (sources - rest) * bounds.tokens_of_longest(full) + rest * bounds.tokens_of_longest(full + 1)
    return replay.rows_per_step, tokens
