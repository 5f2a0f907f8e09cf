"""One rollout server for a whole tree, asked for once.

verl's `LLMServerClient.generate` asks the load balancer before each request and tells it after; for
the hundreds of requests of a tree, all of which go to the same server, that is as many round trips
between processes. Needless when: verl's client can hold a server for a series of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any


class TreeClient:
    """verl's client for the requests of one tree; use it as an async context manager.

    Args:
        client: verl's `LLMServerClient`.
        request_id: the tree's id; the load balancer keeps it on one server.
        prompt_ids: the tree's prompt, for load balancers that look at it.
    """

    def __init__(self, client: Any, request_id: str, prompt_ids: Sequence[int]) -> None:
        self._client = client
        self._request_id = request_id
        self._prompt_ids = list(prompt_ids)

    async def __aenter__(self) -> TreeClient:
        self._server_id, self._server = await self._client._acquire_server(
            self._request_id, prompt_ids=self._prompt_ids, sampling_params={}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client._release_server(self._server_id, request_id=self._request_id)

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        """Sample from the tree's server; returns verl's `TokenOutput`."""
        return await self._server.generate.remote(
            request_id=self._client._vllm_request_id(request_id),
            prompt_ids=prompt_ids,
            sampling_params=sampling_params,
        )
