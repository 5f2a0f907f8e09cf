"""Sampling a chain (paper, section 4.1 and algorithm 1): responses, their cuts, K continuations a cut.

A response is cut as soon as it ends, and its cuts are continued at once, without waiting for the
other responses. Equal states (the prompt, for one) are continued once, whichever response asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from recipe.spo.chain import ChainRollout, State, Trajectory
from recipe.spo.partition import segments
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.tree import first_error
from recipe.spo.settings import ChainSettings
from recipe.spo.tree import Node

#: A response -> its cuts; see `recipe.spo.partition`.
Partition = Callable[[Node], list[int]]


async def grow_chain(
    sampler: Sampler, prompt_ids: Sequence[int], shape: ChainSettings, partition: Partition, response_length: int
) -> ChainRollout:
    """Sample responses and the continuations that value their cuts.

    Args:
        sampler: where tokens come from.
        prompt_ids: token ids of the prompt.
        shape: how many responses, how many continuations.
        partition: where to cut a response.
        response_length: most tokens of a response; a continuation gets what remains of it.

    Returns:
        The rollout, without rewards.

    Raises:
        SamplingError: something could not be sampled; the rest is given up.
        ValueError: the partition gave cuts that are not strictly increasing within the response.
    """
    pending: dict[State, list[asyncio.Task[Node]]] = {}

    async def grow_trajectory(index: int, group: asyncio.TaskGroup) -> Trajectory:
        response = await sampler.sample(tuple(prompt_ids), response_length, (index,))
        trajectory = Trajectory(response, list(partition(response)))
        _check_cuts(trajectory)
        for cut in trajectory.cuts:
            state = trajectory.state(cut)
            if state not in pending:
                context = (*prompt_ids, *state)
                pending[state] = [
                    group.create_task(sampler.sample(context, response_length - cut, (cut, k)))
                    for k in range(shape.continuations)
                ]
        return trajectory

    try:
        async with asyncio.TaskGroup() as group:
            trajectories = [group.create_task(grow_trajectory(i, group)) for i in range(shape.trajectories)]
    except BaseExceptionGroup as error:
        raise first_error(error) from None
    return ChainRollout(
        trajectories=[task.result() for task in trajectories],
        continuations={state: [task.result() for task in tasks] for state, tasks in pending.items()},
    )


def _check_cuts(trajectory: Trajectory) -> None:
    cuts, tokens = trajectory.cuts, len(trajectory.response.token_ids)
    try:
        segments(cuts, tokens)
    except ValueError as error:
        raise ValueError(f"the partition cut a response of {tokens} tokens at {cuts}: {error}") from None
