"""A client's backend: what it publishes is encoded, what it reads is decoded."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from perdure._client.backend import Backend
from perdure._payloads.edge import Edge
from perdure.payloads import Payloads
from perdure.registry import Registry
from perdure_runtime.announced import Announced
from perdure_runtime.ports import RunFilter, RunPage
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, RunChanged, TaskChanged


def coded(backend: Backend, payloads: Payloads | None) -> Backend:
    """The backend behind these, or those of the environment; itself if there are none."""
    payloads = payloads or Payloads.from_environment()
    return backend if payloads is None else CodedBackend(backend, Edge(payloads, backend.namespace))


class CodedBackend:
    """A backend, around another."""

    def __init__(self, backend: Backend, edge: Edge) -> None:
        self._backend = backend
        self._edge = edge

    @property
    def namespace(self) -> str:
        return self._backend.namespace

    @property
    def registry(self) -> Registry | None:
        return self._backend.registry

    @property
    def pushes_ends(self) -> bool:
        return self._backend.pushes_ends

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        await self._backend.open(client_id, lambda message: deliver(self._edge.incoming(message)))

    async def close(self) -> None:
        await self._backend.close()

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        return self._backend.publish(topic, self._edge.outgoing(message), until_end=until_end)

    async def list_runs(self, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        page = await self._backend.list_runs(where, limit, cursor)
        return dataclasses.replace(page, runs=self._edge.incoming(page.runs))

    async def get_run(self, workflow_id: str, run_id: str | None) -> RunChanged | None:
        return self._edge.incoming(await self._backend.get_run(workflow_id, run_id))

    async def list_tasks(self, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        return self._edge.incoming(await self._backend.list_tasks(workflow_id, run_id))

    async def counts(self) -> dict[str, dict[str, int]]:
        return await self._backend.counts()

    async def history(self, workflow_id: str, run_id: str, after_seq: int, limit: int) -> Sequence[Recorded]:
        return self._edge.incoming(await self._backend.history(workflow_id, run_id, after_seq, limit))

    async def announced(self) -> Announced | None:
        return await self._backend.announced()
