"""Growing a tree of segments (paper, section 4.2 and algorithm 2): a node expands as soon as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from recipe.spo.rollout.sampler import Sampler
from recipe.spo.settings import TreeSettings
from recipe.spo.stopping import StoppingRule, at_full_length
from recipe.spo.tree import Node


async def grow_tree(
    sampler: Sampler,
    prompt_ids: Sequence[int],
    shape: TreeSettings,
    response_length: int,
    stop: StoppingRule = at_full_length,
) -> Node:
    """Sample a tree of segments from a prompt.

    There is no barrier between levels: each child goes on to its own children once it is there.
    A child that ended the response is a leaf at whatever depth; one that has spent the whole
    response budget is an unfinished leaf.

    A segment ends where `stop` says, or with its level's budget. Tokens that were sampled beyond its
    end are the beginning of the node's first child: nothing is thrown away, and because the rule
    does not look ahead, they are a fair draw from the node's state like its other children
    (see `recipe.spo.stopping`).

    Args:
        sampler: where segments come from.
        prompt_ids: token ids of the prompt.
        shape: branch factors and segment lengths.
        response_length: most tokens of a response.
        stop: where a segment ends before its budget, at every level but the last.

    Returns:
        The root, without rewards and values.

    Raises:
        SamplingError: a segment could not be sampled; the tree's other segments are given up.
    """
    root = Node()

    async def expand(node: Node, path: tuple[int, ...], response_ids: tuple[int, ...], begun: Node | None) -> None:
        depth = len(path)
        if node.finished or depth == shape.depth or len(response_ids) >= response_length:
            return
        budget = shape.segment_budget(depth, len(response_ids), response_length)
        rule = at_full_length if depth == shape.depth - 1 else stop
        context = (*prompt_ids, *response_ids)

        async def grow_child(index: int) -> Node:
            child_path = (*path, index)
            draft = begun if index == 0 else None
            child, rest = await sample_segment(sampler, context, budget, rule, child_path, draft)
            await expand(child, child_path, (*response_ids, *child.token_ids), rest)
            return child

        async with asyncio.TaskGroup() as group:
            children = [group.create_task(grow_child(i)) for i in range(shape.branch_factors[depth])]
        node.children = [task.result() for task in children]

    try:
        await expand(root, (), (), None)
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    return root


async def sample_segment(
    sampler: Sampler,
    context_ids: tuple[int, ...],
    budget: int,
    stop: StoppingRule,
    path: tuple[int, ...],
    begun: Node | None = None,
) -> tuple[Node, Node | None]:
    """Sample one segment, from tokens that are there already if there are some.

    Args:
        sampler: where tokens come from.
        context_ids: prompt and response tokens before the segment.
        budget: most tokens of the segment.
        stop: where it ends before that.
        path: where it stands in its tree.
        begun: tokens sampled from this state before, or `None`.

    Returns:
        The segment, and what was sampled beyond its end (`None`: nothing).
    """
    draft = begun or Node()
    end = stop(draft.token_ids[:budget], draft.log_probs[:budget]) if begun else None
    if end is None and not draft.finished and len(draft.token_ids) < budget:
        more = await sampler.sample((*context_ids, *draft.token_ids), budget - len(draft.token_ids), path)
        draft = Node(draft.token_ids + more.token_ids, draft.log_probs + more.log_probs, more.finished)
        end = stop(draft.token_ids, draft.log_probs)
    end = budget if end is None else end
    if end >= len(draft.token_ids):
        return draft, None
    segment = Node(draft.token_ids[:end], draft.log_probs[:end])
    return segment, Node(draft.token_ids[end:], draft.log_probs[end:], draft.finished)


def first_error(error: BaseException) -> BaseException:
    """The exception that made a task group fail."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
