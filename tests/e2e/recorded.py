"""A rollout worker that plays back trees from a dump, so that two runs meet the same rollouts.

`SPO_RECORDED` in the environment names the dump folder of the run that sampled them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray

from recipe.spo.dump import TREES, node_of, read_dump
from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.worker import SPOAgentLoopManager, SPOAgentLoopWorker
from recipe.spo.tree import Node, endings, walk


class RecordedWorker(SPOAgentLoopWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trees = read_dump(os.environ["SPO_RECORDED"], TREES)
        self.recorded = {(tree["step"], tree["index"]): tree["root"] for tree in trees}

    async def _grow(self, sampler: Sampler, prompt_ids: list[int], prompt: Mapping[str, Any]) -> Node:
        step = int(prompt["global_steps"])
        root = node_of(self.recorded[step, str(prompt["index"])])  # another question than then is an error
        for visit in walk(root):
            visit.node.value = None
        for _, leaf in endings(root):
            leaf.reward = None
        sampler.min_global_steps = sampler.max_global_steps = step - 1
        return root


class RecordedManager(SPOAgentLoopManager):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RecordedWorker)
