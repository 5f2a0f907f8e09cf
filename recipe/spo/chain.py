"""SPO-chain's rollout: whole responses, cut into segments, with a value for every cut.

The value of a cut is the mean reward of K fresh continuations from the state there (paper, section 4.1):

    V(cut) = 1/K * sum of R(continuation k)

which is unbiased, with Var V(cut) = p (1 - p) / K for rewards of 0 and 1, p being the true value.

A cut c of a response is the state after its first c tokens; c = 0 is the prompt. The response's own
rest is not one of the continuations: where the cut stands was chosen by looking at the token behind
it, so that rest is no fair draw from the state.

Departures from the authors' code: states and continuations are token ids, so equal states are equal
ids (theirs are texts, tokenised again); a continuation is graded together with what precedes it
(some of their configurations grade the continuation alone); K samples that do not arrive raise
(theirs count as V = 0).

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recipe.spo.tree import Node

#: A state, by the response tokens that lead to it from the prompt; `()` is the prompt.
State = tuple[int, ...]


@dataclass(slots=True)
class Trajectory:
    """A sampled response with its cuts.

    Attributes:
        response: the whole response; a node without children.
        cuts: where segments begin, strictly increasing, each in [0, number of tokens); tokens before
            the first cut belong to no segment. Without cuts nothing of the response has credit.
    """

    response: Node
    cuts: list[int]

    def state(self, cut: int) -> State:
        return tuple(self.response.token_ids[:cut])


@dataclass(slots=True)
class ChainRollout:
    """What SPO-chain samples for one prompt.

    Attributes:
        trajectories: the responses that train.
        continuations: K samples from each distinct state at which some trajectory is cut; nodes
            without children, holding the tokens after the state.
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    continuations: dict[State, list[Node]] = field(default_factory=dict)

    def endings(self) -> Iterator[tuple[State, Node]]:
        """Every sampled response to be graded: all of its tokens, and the node that takes the reward."""
        for trajectory in self.trajectories:
            yield tuple(trajectory.response.token_ids), trajectory.response
        for state, samples in self.continuations.items():
            for sample in samples:
                yield (*state, *sample.token_ids), sample

    def values(self) -> dict[State, float]:
        """V of every state: the mean reward of its continuations.

        Raises:
            ValueError: a state has no continuation, or one of them has no reward.
        """
        return {state: _mean_reward(state, samples) for state, samples in self.continuations.items()}


def _mean_reward(state: State, samples: list[Node]) -> float:
    where = f"the state after {len(state)} response tokens"
    if not samples:
        raise ValueError(f"{where} has no continuation to be valued by")
    if any(sample.reward is None for sample in samples):
        raise ValueError(f"a continuation of {where} has no reward: grade every ending before computing values")
    return sum(sample.reward for sample in samples) / len(samples)
