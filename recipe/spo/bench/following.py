"""A sampler that lets a rollout run through responses that are there already.

A response of the policy is a fair draw of what a trajectory, or the path of first children under a child of the root,
is. So a rollout in which these are given, and all else is sampled, is distributed as an ordinary rollout; and the
rollouts of all methods share the states of the given responses.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recipe.spo.rollout.sampler import Sampler, SamplingError
from recipe.spo.tree import Node


@dataclass(slots=True)
class FollowingSampler(Sampler):
    """Gives the tokens of reference i on path (i,) and, in a tree, on (i, 0), (i, 0, 0), ...

    Attributes:
        references: whole responses, as many as the rollout's first level is wide, or fewer.
        tree: the rollout is a tree; a chain's continuations, whose paths are (cut, k), follow nobody.
    """

    references: Sequence[Node] = field(default_factory=tuple)
    tree: bool = True

    async def sample(self, context_ids: Sequence[int], max_tokens: int, path: tuple[int, ...]) -> Node:
        """A segment of a reference, or a fresh one; see `Sampler.sample`.

        Raises:
            SamplingError: the context of a reference's path is not the reference's own.
        """
        follows = not any(path[1:]) if self.tree else len(path) == 1
        if not follows or path[0] >= len(self.references):
            return await Sampler.sample(self, context_ids, max_tokens, path)
        reference, done = self.references[path[0]], len(context_ids) - self.prompt_length
        end = min(done + max_tokens, len(reference.token_ids))
        if list(context_ids[self.prompt_length :]) != reference.token_ids[:done] or done >= end:
            raise SamplingError(f"segment {path}: its context of {done} response tokens is not the reference's")
        whole = end == len(reference.token_ids)
        return Node(reference.token_ids[done:end], reference.log_probs[done:end], reference.finished and whole)
