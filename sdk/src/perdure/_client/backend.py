"""What a client needs of the other side, and the backend that has it on ports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from perdure._client.outbox import Outbox
from perdure._payloads.blobs import Blobs, StoreBlobs
from perdure_runtime.adapters.queues import QueueBroker
from perdure_runtime.announced import Announced, Announcements
from perdure_runtime.ports import BlobAccess, Broker, Consumer, Delivery, RunFilter, RunKey, RunPage
from perdure_schemas import topics
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, RunChanged, TaskChanged

if TYPE_CHECKING:
    from perdure.registry import Registry

T = TypeVar("T")

_log = logging.getLogger("perdure.client")

_SEQ_MAX = 2**53
"""To the end: no history is as long."""
_PAGE_BYTES = 8 * 1024 * 1024
"""About: no client wants more at a time, and a frame of a socket holds eight times as much."""
RECEIVE_RETRY_SECONDS = 0.5
"""Pause after the inbox could not be read: answers are asked for again anyway."""


class Backend(Protocol):
    """Publishes for a client, brings what comes to its inbox, and reads."""

    @property
    def namespace(self) -> str: ...

    @property
    def registry(self) -> Registry | None:
        """What the only worker there can be has; nothing if there may be others."""
        ...

    @property
    def pushes_ends(self) -> bool:
        """Whether the end of a run that was started here comes without being asked for."""
        ...

    @property
    def blobs(self) -> Blobs | None:
        """Where large values are, once it is open; nothing if it is not known."""
        ...

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        """Start delivering what comes to `inbox.{client_id}`."""
        ...

    async def close(self) -> None: ...

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        """Ends when the message is durable. Raises Unavailable or PayloadTooLarge.

        `until_end`: of a start whose run's end is waited for, which may then be asked for with it.
        """
        ...

    async def whole(self, answer: T) -> T:
        """With the large values that it refers to.

        Raises:
            Unavailable: they could not be read.
        """
        ...

    async def list_runs(self, where: RunFilter, limit: int, cursor: str | None) -> RunPage: ...

    async def get_run(self, workflow_id: str, run_id: str | None) -> RunChanged | None: ...

    async def list_tasks(self, workflow_id: str, run_id: str) -> Sequence[TaskChanged]: ...

    async def counts(self) -> dict[str, dict[str, int]]: ...

    async def history(self, workflow_id: str, run_id: str, after_seq: int, limit: int) -> Sequence[Recorded]: ...

    async def announced(self) -> Announced | None:
        """What workers have; nothing where that cannot be known."""
        ...


class Reads(Protocol):
    """The part of a read model that clients use."""

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage: ...

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None: ...

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]: ...

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]: ...


class Histories(Protocol):
    """The part of a store that clients use."""

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int
    ) -> Sequence[Recorded]: ...


class AsItComes:
    """Of a backend that leaves answers as they are: another one around it does what is to be done with them."""

    async def whole(self, answer: T) -> T:
        return answer


class PortsBackend(AsItComes):
    """On a broker, a read model and a store of this process, or of one that a socket leads to."""

    pushes_ends = True

    def __init__(self, namespace: str) -> None:
        """Give it its ports by `use` before it is opened."""
        self.namespace = namespace
        self.registry: Registry | None = None
        self.blobs: Blobs | None = None
        self._broker: Broker
        self._read_model: Reads
        self._store: Histories
        self._announcements: Announcements | None = None
        self._outbox: Outbox | None = None
        self._consumer: Consumer | None = None
        self._reader: asyncio.Task[None] | None = None

    def use(
        self,
        broker: Broker,
        read_model: Reads,
        store: Histories,
        *,
        blobs: BlobAccess,
        announcements: Announcements | None = None,
    ) -> None:
        """Work on these. A broker of this process knows itself what has been announced to it."""
        if announcements is None and isinstance(broker, QueueBroker):
            announcements = partial(broker.announced, self.namespace)
        self._announcements = announcements
        self._broker = broker
        self._read_model = read_model
        self._store = store
        self.blobs = StoreBlobs(blobs, self.namespace)

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        inbox = topics.inbox(client_id)
        self._outbox = Outbox(self._broker.publisher())
        self._consumer = await self._broker.subscribe(self.namespace, [inbox], inbox, "exclusive")
        self._reader = asyncio.create_task(self._read(self._consumer, deliver), name=f"perdure {inbox}")

    async def close(self) -> None:
        if self._outbox is not None:
            await self._outbox.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._consumer is not None:
            await self._consumer.close()

    async def _read(self, consumer: Consumer, deliver: Callable[[Message], None]) -> None:
        while True:
            try:
                deliveries = await consumer.receive()
                for delivery in deliveries:
                    if isinstance(delivery, Delivery):
                        deliver(delivery.message)
                    else:  # whoever waits for it asks again; an engine of another release may have sent it
                        _log.error("answer_undecodable: %s", delivery.error, extra={"action": "answer_undecodable"})
                await consumer.ack(deliveries)
            except Exception:
                _log.exception("inbox not readable")
                await asyncio.sleep(RECEIVE_RETRY_SECONDS)

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        """An engine tells the end in any case."""
        assert self._outbox is not None, "the client is open"
        return self._outbox.post(topic, message)

    async def list_runs(self, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        return await self._read_model.list_runs(self.namespace, where, limit, cursor)

    async def get_run(self, workflow_id: str, run_id: str | None) -> RunChanged | None:
        return await self._read_model.get_run(self.namespace, workflow_id, run_id)

    async def list_tasks(self, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        tasks = await self._read_model.list_tasks(self.namespace, workflow_id, run_id)
        return self._broker.as_held(self.namespace, tasks) if isinstance(self._broker, QueueBroker) else tasks

    async def counts(self) -> dict[str, dict[str, int]]:
        return await self._read_model.counts(self.namespace)

    async def history(self, workflow_id: str, run_id: str, after_seq: int, limit: int) -> Sequence[Recorded]:
        key = RunKey(self.namespace, workflow_id)
        return await self._store.history(key, run_id, after_seq, _SEQ_MAX, limit, bytes_max=_PAGE_BYTES)

    async def announced(self) -> Announced | None:
        return None if self._announcements is None else await self._announcements()
