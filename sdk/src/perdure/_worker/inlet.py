"""One subscription of the worker: what comes is handled, and acknowledged once it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from perdure._worker.outbox import Acks, Answer, Outbox
from perdure._worker.ward import Ward
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Consumer, Delivery, Publisher, Undeliverable
from perdure_schemas import topics

log = logging.getLogger("perdure.worker")

RECEIVE_MAX = 256
RETRY_SECONDS = 0.5
"""After a consumer's error, before it is asked again."""
BURY_DELAY_MS = 1_000
"""Before what could not be buried is delivered again."""


class Inlet:
    """Receives for as long as `receive` runs."""

    def __init__(
        self, consumer: Consumer, outbox: Outbox, publisher: Publisher, *, namespace: str, ward: Ward | None
    ) -> None:
        """`ward`: of what user code runs on."""
        self.acks = Acks(consumer, None if ward is None else ward.leave)
        self._ward = ward
        self._consumer = consumer
        self._outbox = outbox
        self._publisher = publisher
        self._namespace = namespace
        self._marking: asyncio.Queue[tuple[Awaitable[None], Callable[[], None]]] = asyncio.Queue()

    async def receive(
        self, handle: Callable[[list[Delivery]], None], room: Callable[[], Awaitable[int]] | None = None
    ) -> None:
        """Give `handle` what comes; `room` waits until there is some, and tells for how many."""
        while True:
            limit = RECEIVE_MAX if room is None else min(await room(), RECEIVE_MAX)
            try:
                batch = await self._consumer.receive(limit)
            except StorageUnavailable as error:
                log.warning("receive_retried", extra={"action": "receive_retried", "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            deliveries = [item for item in batch if isinstance(item, Delivery)]
            if len(deliveries) < len(batch):
                await self._bury([item for item in batch if isinstance(item, Undeliverable)])
            if deliveries:
                if self._ward is None:
                    handle(deliveries)
                else:
                    await self._ward.admit(deliveries, self._consumer, handle)

    def begin(self, deliveries: Sequence[Delivery], then: Callable[[], None]) -> bool:
        """Write down that they may die of the user code that is about to run: whether it is written.

        If not, `then` is called once it is.
        """
        if self._ward is not None:
            deliveries = self._ward.to_begin(deliveries)
        marked = self._consumer.begin(deliveries) if deliveries else None
        if marked is None:
            return True
        self._marking.put_nowait((marked, then))
        return False

    async def follow_marks(self) -> None:
        """Call each `then` of `begin` in its turn."""
        while True:
            marked, then = await self._marking.get()
            await marked
            then()

    async def pause(self) -> None:
        await self._consumer.pause()

    async def resume(self) -> None:
        """Raises StorageUnavailable: it is paused as before."""
        await self._consumer.resume()

    async def close(self) -> None:
        """What is not acknowledged is handed back."""
        await self._consumer.close()

    def reject(self, delivery: Delivery) -> None:
        """A message that has no business on its topic goes to the dead letters."""
        log.error("message_misplaced", extra={"action": "message_misplaced", "topic": delivery.topic})
        step = (topics.dead_letters(delivery.topic), delivery.message)
        self._outbox.add(Answer([step], [delivery], self.acks))

    async def _bury(self, unreadable: Sequence[Undeliverable]) -> None:
        """What cannot be decoded goes to the dead letters, where people find it."""
        for item in unreadable:
            log.error("message_undecodable", extra={"action": "message_undecodable", "topic": item.topic})
            topic = topics.dead_letters(item.topic)
            try:
                await self._publisher.publish_raw(topic, self._namespace, item.data, item.error)
            except StorageUnavailable:
                await self._consumer.nack([item], BURY_DELAY_MS)
            else:
                self.acks.add([item])
