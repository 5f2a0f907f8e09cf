"""Trees and chains in one shape: nodes, each a segment and the state after it.

A group of responses is a tree of depth one. A response of a chain is a path from the prompt: the
tokens before its first cut, if any, which belong to no segment, then its segments; the continuations
that value a state hang from the node that ends there, of equal states from the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from recipe.spo.viewer.errors import ViewError
from recipe.spo.viewer.fields import Fields

#: `recipe.spo.recorder.FORMAT`, which this reads.
FORMAT = 1
#: Most segments one below the other; a rollout has a few.
DEEPEST = 200
PROMPT, SEGMENT, UNCUT, CONTINUATION = "prompt", "segment", "uncut", "continuation"


@dataclass(slots=True)
class Tokens:
    """Tokens with what is known of each; lists of equal length.

    Attributes:
        ids: token ids.
        texts: their text.
        probabilities: when sampled; empty for a prompt.
        mask: 1 where the probability mask lets the token train; `None` if the trainer decides that, or nothing trains.
    """

    ids: list[int]
    texts: list[str]
    probabilities: list[float]
    mask: list[int] | None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def part(self, begin: int, end: int) -> Tokens:
        """Some of them."""
        mask = None if self.mask is None else self.mask[begin:end]
        return Tokens(self.ids[begin:end], self.texts[begin:end], self.probabilities[begin:end], mask)


@dataclass(slots=True)
class Shown:
    """A node.

    Attributes:
        label: its place: child indices from the prompt; of chains the response and the segment.
        kind: `PROMPT`, `SEGMENT`, `UNCUT` or `CONTINUATION`.
        parent: index of the node before it; `None` for the prompt.
        tokens: its segment.
        advantage: of the segment; `None` if the rollout gave none.
        value: of the state after it; `None` if nobody estimated it.
        row: whether the segment, or its whole response, became a training row.
        finished: the policy ended the response here.
        reward: of the response that ends here.
        verdict: the grader's reason for the reward.
        same_state: index of the node that has this state's continuations, if it is another one.
    """

    label: str
    kind: str
    parent: int | None
    tokens: Tokens
    advantage: float | None = None
    value: float | None = None
    row: bool = False
    finished: bool = False
    reward: float | None = None
    verdict: str = ""
    same_state: int | None = None


@dataclass(slots=True)
class Question:
    """A dumped question.

    Attributes:
        uid: of the rollout.
        step: training step.
        index: the data set's.
        method: `algorithm.spo.method`.
        threshold: of the mask; `None` for no mask.
        truth: the right answer, if the data has one.
        nodes: parents before children, the prompt first.
    """

    uid: str
    step: int
    index: str
    method: str
    threshold: float | None
    truth: str | None
    nodes: list[Shown] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        return self.nodes[0].tokens.text

    def children(self) -> list[list[int]]:
        """Of each node the indices of its children."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            if node.parent is not None:
                found[node.parent].append(index)
        return found


def question_of(record: Fields) -> Question:
    """A dumped record as a question.

    Args:
        record: a line of a `trees-*.jsonl` or `chains-*.jsonl` file.

    Raises:
        ViewError: a field is missing or wrong.
    """
    if record.content.get("format") != FORMAT:
        raise record.wrong("format", f"{FORMAT}: this version's (dump again)")
    question = Question(
        uid=record.text("uid"),
        step=record.whole("step"),
        index=record.text("index"),
        method=record.text("method"),
        threshold=record.number_or_none("mask_threshold"),
        truth=record.text_or_none("truth"),
    )
    ids = record.ids("prompt_ids")
    prompt = Tokens(ids, record.texts("prompt_texts", len(ids)), [], None)
    question.nodes.append(Shown("", PROMPT, None, prompt))
    if "root" in record.content:
        root = record.object("root")
        question.nodes[0].value = root.number_or_none("value")
        for index, child in enumerate(root.objects("children")):
            _add_tree(question.nodes, child, 0, str(index), 1)
    else:
        _add_chain(question.nodes, record)
    return question


def _add_tree(nodes: list[Shown], record: Fields, parent: int, label: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ViewError(f"{record.where}, field root: must have at most {DEEPEST} levels of segments, and has more")
    node, advantages = _sampled(record, SEGMENT, parent, label)
    node.advantage = advantages[0] if advantages else None
    nodes.append(node)
    place = len(nodes) - 1
    for index, child in enumerate(record.objects("children")):
        _add_tree(nodes, child, place, f"{label}.{index}", depth + 1)


def _add_chain(nodes: list[Shown], record: Fields) -> None:
    entries = {tuple(entry.ids("state")): entry for entry in record.objects("continuations")}
    values = {state: entry.number_or_none("value") for state, entry in entries.items()}
    nodes[0].value = values.get(())
    places: dict[tuple[int, ...], int] = {(): 0} if () in entries else {}
    for number, trajectory in enumerate(record.objects("trajectories")):
        whole, advantages = _sampled(trajectory.object("response"), SEGMENT, 0, str(number))
        length, parent = len(whole.tokens.ids), 0
        cuts = _cuts(trajectory, length)
        borders = [*([0] if cuts[:1] != [0] else []), *cuts, length]
        for index, (begin, end) in enumerate(pairwise(borders)):
            node = replace(whole, parent=parent, tokens=whole.tokens.part(begin, end), label=f"{number}.{index}")
            node.kind = SEGMENT if begin in cuts else UNCUT
            node.advantage = advantages[begin] if advantages and node.kind == SEGMENT else None
            if end < length:
                state = tuple(whole.tokens.ids[:end])
                if state not in entries:
                    raise record.wrong(
                        "continuations", f"a list with the state after {end} tokens of response {number}"
                    )
                node.value, node.reward, node.verdict, node.finished = values[state], None, "", False
                node.same_state = places.get(state)
                places.setdefault(state, len(nodes))
            nodes.append(node)
            parent = len(nodes) - 1
    for state, entry in entries.items():
        if state not in places:
            raise entry.wrong("state", "a state at which a response is cut")
        for index, sample in enumerate(entry.objects("samples")):
            before = nodes[places[state]].label
            label = f"{before}~{index}" if before else f"~{index}"
            node, _ = _sampled(sample, CONTINUATION, places[state], label)
            node.value = node.reward
            nodes.append(node)


def _sampled(record: Fields, kind: str, parent: int, label: str) -> tuple[Shown, Sequence[float] | None]:
    """A node as it stands in the record, and the advantages of its tokens."""
    ids = record.ids("token_ids")
    if not ids:
        raise record.wrong("token_ids", "a list of at least one token id")
    length, trains = len(ids), kind != CONTINUATION
    mask = record.numbers_or_none("mask", length) if trains else None
    tokens = Tokens(
        ids,
        record.texts("texts", length),
        [min(1.0, math.exp(log_prob)) for log_prob in record.log_probs("log_probs", length)],
        None if mask is None else [int(bit) for bit in mask],
    )
    reward = record.number_or_none("reward")
    node = Shown(
        label=label,
        kind=kind,
        parent=parent,
        tokens=tokens,
        value=reward if reward is not None else record.number_or_none("value"),
        row=trains and record.truth("row"),
        finished=record.truth("finished"),
        reward=reward,
        verdict=record.text("verdict"),
    )
    return node, record.numbers_or_none("advantages", length) if trains else None


def _cuts(trajectory: Fields, length: int) -> list[int]:
    cuts = trajectory.ids("cuts")
    if any(a >= b for a, b in pairwise([*cuts, length])):
        raise trajectory.wrong("cuts", f"places that increase, below the response's {length} tokens")
    return cuts
