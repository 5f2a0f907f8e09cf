"""A rollout worker that writes down which rollout server each tree was sampled by.

`SPO_SERVERS` in the environment names the file: a line a tree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray

from recipe.spo.rollout.sampler import Sampler
from recipe.spo.rollout.worker import SPOAgentLoopManager, SPOAgentLoopWorker
from recipe.spo.tree import Node


class WatchedWorker(SPOAgentLoopWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Ray pickles subclasses right only if they define one
        super().__init__(*args, **kwargs)

    async def _grow(self, sampler: Sampler, prompt_ids: list[int], prompt: Mapping[str, Any]) -> Node:
        with open(os.environ["SPO_SERVERS"], "a", encoding="utf-8") as file:
            file.write(f"{sampler.client._server_id}\n")
        return await super()._grow(sampler, prompt_ids, prompt)


class WatchedManager(SPOAgentLoopManager):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(WatchedWorker)
