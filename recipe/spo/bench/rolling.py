"""Sampling and grading the rollouts of a question, through its references.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.spo.bench.following import FollowingSampler
from recipe.spo.bench.methods import Plan, Rollout
from recipe.spo.bench.problem import BenchClient, Problem
from recipe.spo.chain import ChainRollout
from recipe.spo.cutting import Decode, chain_partition, tree_stop
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.ending import EndRule
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.settings import ChainSettings
from recipe.spo.tree import Node, endings


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        parameters: temperature, top_p, top_k, and stop texts if there are any.
        eos_ids: token ids that end a response.
        cut_threshold: probability below which a token is improbable, for cuts.
        decode: token ids -> text, for partitions by text.
        end_rule: what ends a response but EOS.
    """

    parameters: Mapping[str, Any]
    eos_ids: frozenset[int]
    cut_threshold: float
    decode: Decode
    end_rule: EndRule | None = None


async def roll_out(
    client: BenchClient, sampling: Sampling, problem: Problem, plan: Plan, references: Sequence[Node]
) -> Rollout:
    """Grow a plan's rollout through the references with the code of training, and grade it.

    Args:
        client: where tokens come from.
        sampling: how they are drawn.
        problem: the question.
        plan: what to sample.
        references: as many as the plan's first level is wide, or fewer.
    """
    chain = isinstance(plan.shape, ChainSettings)
    sampler = FollowingSampler(
        client,
        f"{problem.id}/{plan.name}",
        sampling.parameters,
        sampling.eos_ids,
        references=references,
        prompt_length=len(problem.prompt_ids),
        end_rule=sampling.end_rule,
        tree=not chain,
    )
    rollout: Rollout
    if chain:
        cut = chain_partition(plan.shape, sampling.cut_threshold, sampling.decode)
        rollout = await grow_chain(sampler, problem.prompt_ids, plan.shape, cut, problem.budget)
    else:
        stop = tree_stop(plan.shape, sampling.cut_threshold, sampling.decode)
        rollout = await grow_tree(sampler, problem.prompt_ids, plan.shape, problem.budget, stop)
    for response_ids, node in rollout.endings() if isinstance(rollout, ChainRollout) else endings(rollout):
        node.reward = problem.grade(response_ids) if node.finished else 0.0
    return rollout
