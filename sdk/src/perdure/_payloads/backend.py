"""A client's backend: what it publishes is encoded, what it reads is decoded, and large values go beside."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from perdure._client.backend import Backend
from perdure._client.outbox import PUBLISH_SECONDS_MAX, fail
from perdure._payloads.blobs import Blobs
from perdure._payloads.edge import Edge
from perdure._payloads.sealings import Sealings
from perdure.errors import PerdureError, Unavailable
from perdure.payloads import Payloads
from perdure.registry import Registry
from perdure_runtime.announced import Announced
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RunFilter, RunPage
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, RunChanged, TaskChanged

T = TypeVar("T")


def coded(backend: Backend, payloads: Payloads | None) -> Backend:
    """The backend behind these, or those of the environment."""
    return CodedBackend(backend, payloads or Payloads.from_environment())


class _Sealed:
    """Publishes messages with large values, once those are stored."""

    def __init__(self, edge: Edge, backend: Backend) -> None:
        self._edge = edge
        self._backend = backend
        self._sealings = Sealings(edge)
        self._last: dict[str, asyncio.Task[None]] = {}
        """By key: the last that is not given to the backend yet. What comes after it must not overtake it: who asks for
        the end of a run that is not started yet hears that there is none."""

    def publish(self, topic: str, message: Message, *, until_end: bool) -> asyncio.Future[None] | None:
        """As the backend's; `None`: nothing is to be stored or waited for, and nothing is done."""
        sealing = self._sealings.of(message)
        if sealing is None and message.key not in self._last:
            return None
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        publish = partial(self._publish, topic, message, sealing, until_end=until_end)
        task = asyncio.ensure_future(self._in_turn(self._last.get(message.key), publish, accepted))
        self._last[message.key] = task
        task.add_done_callback(lambda done: self._forget_done(message.key, done))
        return accepted

    def close(self) -> None:
        for task in self._last.values():
            task.cancel()
        self._sealings.close()

    def _forget_done(self, key: str, done: asyncio.Task[None]) -> None:
        if self._last.get(key) is done:
            del self._last[key]

    async def _publish(
        self, topic: str, message: Message, sealing: asyncio.Future[Message] | None, *, until_end: bool
    ) -> asyncio.Future[None]:
        if sealing is not None:
            message = await sealing
        return self._backend.publish(topic, self._edge.outgoing(message), until_end=until_end)

    async def _in_turn(
        self,
        before: asyncio.Task[None] | None,
        publish: Callable[[], Awaitable[asyncio.Future[None]]],
        accepted: asyncio.Future[None],
    ) -> None:
        """The turn is over once the backend has the message: it keeps the order of what it is given. That a start is
        confirmed may be told with the end of its run only, for which a signal may be needed."""
        try:
            if before is not None:
                await asyncio.wait([before])
            published = await publish()
        except StorageUnavailable as error:
            fail(accepted, Unavailable(f"a large value was not stored within {PUBLISH_SECONDS_MAX:.0f} s: {error}"))
        except PerdureError as error:
            fail(accepted, error)
        except asyncio.CancelledError:
            accepted.cancel()
            raise
        except Exception as error:
            fail(accepted, Unavailable(f"the message could not be published: {error!r}"))
        else:
            published.add_done_callback(partial(_pass_on, accepted))


class CodedBackend:
    """A backend, around another. Values of histories and lists stay references: nobody looks at all of them. Those of
    answers do until somebody wants them: of most runs that a program starts it never asks for the result."""

    def __init__(self, backend: Backend, payloads: Payloads | None) -> None:
        self._backend = backend
        self._edge = Edge(payloads, backend.namespace, lambda: backend.blobs, patience_seconds=PUBLISH_SECONDS_MAX)
        self._sealed = _Sealed(self._edge, backend)

    @property
    def namespace(self) -> str:
        return self._backend.namespace

    @property
    def registry(self) -> Registry | None:
        return self._backend.registry

    @property
    def pushes_ends(self) -> bool:
        return self._backend.pushes_ends

    @property
    def blobs(self) -> Blobs | None:
        return self._backend.blobs

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        await self._backend.open(client_id, lambda message: deliver(self._edge.incoming(message)))

    async def close(self) -> None:
        self._sealed.close()
        await self._backend.close()

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        sealed = self._sealed.publish(topic, message, until_end=until_end)
        return sealed or self._backend.publish(topic, self._edge.outgoing(message), until_end=until_end)

    async def whole(self, answer: T) -> T:
        opening = self._edge.open(answer)
        try:
            return answer if opening is None else await opening()
        except StorageUnavailable as error:
            raise Unavailable(f"a large value was not read within {PUBLISH_SECONDS_MAX:.0f} s: {error}") from error

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


def _pass_on(accepted: asyncio.Future[None], published: asyncio.Future[None]) -> None:
    if published.cancelled():
        accepted.cancel()
        return
    error = published.exception()
    if error is not None:
        fail(accepted, error)
    elif not accepted.done():
        accepted.set_result(None)
