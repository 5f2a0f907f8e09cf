"""Growing a tree of segments (paper, section 4.2 and algorithm 2): a node expands as soon as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from recipe.spo.rollout.sampler import Sampler
from recipe.spo.settings import TreeSettings
from recipe.spo.tree import Node


async def grow_tree(sampler: Sampler, prompt_ids: Sequence[int], shape: TreeSettings, response_length: int) -> Node:
    """Sample a tree of segments from a prompt.

    There is no barrier between levels: each child goes on to its own children once it is there.
    A child that ended the response is a leaf at whatever depth; one that has spent the whole
    response budget is an unfinished leaf.

    Args:
        sampler: where segments come from.
        prompt_ids: token ids of the prompt.
        shape: branch factors and segment lengths.
        response_length: most tokens of a response.

    Returns:
        The root, without rewards and values.

    Raises:
        SamplingError: a segment could not be sampled; the tree's other segments are given up.
    """
    root = Node()

    async def expand(node: Node, path: tuple[int, ...], response_ids: tuple[int, ...]) -> None:
        depth = len(path)
        if node.finished or depth == shape.depth or len(response_ids) >= response_length:
            return
        budget = shape.segment_budget(depth, len(response_ids), response_length)
        context = (*prompt_ids, *response_ids)

        async def grow_child(index: int) -> Node:
            child_path = (*path, index)
            child = await sampler.sample(context, budget, child_path)
            await expand(child, child_path, (*response_ids, *child.token_ids))
            return child

        async with asyncio.TaskGroup() as group:
            children = [group.create_task(grow_child(i)) for i in range(shape.branch_factors[depth])]
        node.children = [task.result() for task in children]

    try:
        await expand(root, (), ())
    except BaseExceptionGroup as group:
        raise _first_error(group) from None
    return root


def _first_error(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
