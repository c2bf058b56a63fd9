"""What keeps a service going: messages that cannot be handled leave their key free, and no error of one round ends it.

Failures are counted by us, since brokers forget; then the message goes to the dead letters. An outage of a store or
broker is nobody's failure: its messages come again, however often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import RECEIVE_MAX, Consumer, Delivery, Publisher, Undeliverable
from perdure_schemas import topics

log = logging.getLogger("perdure.runtime")

FAILURES_MAX = 5
"""Handling a message may fail so often (not counting outages); then it goes to the dead-letter topic."""
FAILING_MAX = 10_000
"""So many messages are counted at a time: those another replica handled in the end are not reported here."""
OUTAGE_DELAY_MS = 500
"""While a store or broker cannot work, messages come again after this time, however often."""
FAILED_DELAY_MS = 50
"""Before a message whose handling failed, or lost a race, is handled again."""

Received = Delivery | Undeliverable


class FailureCounts:
    """Failures per message id, of messages not yet acknowledged."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def exhausted(self, message_id: str) -> bool:
        """Count one more failure; true when the message is to be given up."""
        count = self._counts.get(message_id, 0) + 1
        self._counts[message_id] = count
        if len(self._counts) > FAILING_MAX:
            del self._counts[next(iter(self._counts))]
        return count >= FAILURES_MAX

    def forget(self, message_id: str) -> None:
        """It is acknowledged."""
        if self._counts:
            self._counts.pop(message_id, None)


class Intake:
    """A consumer as a service sees it: whatever happens, each delivery is acknowledged, buried or handed back."""

    def __init__(self, consumer: Consumer, publisher: Publisher, namespace: str) -> None:
        self.consumer = consumer
        self._publisher = publisher
        self._namespace = namespace
        self._failures = FailureCounts()
        self._returning: set[asyncio.Task[None]] = set()

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery]:
        """What comes next and can be read; the rest goes to the dead letters."""
        batch = await self.consumer.receive(limit)
        readable = [item for item in batch if isinstance(item, Delivery)]
        if len(readable) < len(batch):
            await self._bury([item for item in batch if isinstance(item, Undeliverable)])
        return readable

    async def take(self, handle: Callable[[Sequence[Delivery]], Awaitable[None]], limit: int = RECEIVE_MAX) -> bool:
        """Handle what comes next; whether there was anything that can be read."""
        batch = await self.receive(limit)
        if batch:
            await self.handle(batch, handle)
        return bool(batch)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Never raises: if the broker did not take it, they come again."""
        try:
            await self.consumer.ack(deliveries)
        except Exception as error:
            await self._hand_back(deliveries, error)
            return
        for delivery in deliveries:
            self._failures.forget(delivery.message.id)

    def hand_back(self, deliveries: Sequence[Delivery], delay_ms: int) -> None:
        """They come again, to anybody, not before the delay. Returns at once."""
        if deliveries:
            task = asyncio.get_running_loop().create_task(self.consumer.nack(deliveries, delay_ms))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    def exhausted(self, delivery: Delivery) -> bool:
        """Count one more failure of its message; true when it is to go to the dead letters."""
        return self._failures.exhausted(delivery.message.id)

    async def handle(self, batch: Sequence[Delivery], handle: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        """Handle deliveries together; if that fails by the fault of one, each by itself.

        After an outage, or a race that another replica may have won, they are handed back.
        """
        try:
            await handle(batch)
        except StorageUnavailable as error:
            await self._hand_back(batch, error)
        except UnknownOutcome:
            await self.consumer.nack(batch, FAILED_DELAY_MS)
        except Exception as error:
            if len(batch) == 1:
                await self.failed(batch[0], error)
                return
            for delivery in batch:
                await self.handle([delivery], handle)

    async def failed(self, delivery: Delivery, error: Exception) -> None:
        """Its own fault: it comes again, and after FAILURES_MAX times goes to the dead letters."""
        message = delivery.message
        extra = {"action": "message_failed", "topic": delivery.topic, "message_id": message.id}
        log.error("message failed", extra=extra, exc_info=error)
        if not self._failures.exhausted(message.id):
            await self.consumer.nack([delivery], FAILED_DELAY_MS)
            return
        try:
            await self._publisher.publish([(topics.dead_letters(delivery.topic), message)])
        except Exception as problem:
            await self._hand_back([delivery], problem)
            return
        await self.ack([delivery])

    async def _bury(self, unreadable: Sequence[Undeliverable]) -> None:
        for item in unreadable:
            log.error("message undecodable", extra={"action": "message_undecodable", "topic": item.topic})
            try:
                topic = topics.dead_letters(item.topic)
                await self._publisher.publish_raw(topic, self._namespace, item.data, item.error)
                await self.consumer.ack([item])
            except Exception as error:
                await self._hand_back([item], error)

    async def _hand_back(self, deliveries: Sequence[Received], error: Exception) -> None:
        """Whatever it was, it was not their fault."""
        unforeseen = None if isinstance(error, StorageUnavailable) else error
        log.warning("delayed", extra={"action": "messages_delayed", "error": str(error)}, exc_info=unforeseen)
        await self.consumer.nack(deliveries, OUTAGE_DELAY_MS)


async def for_ever(step: Callable[[], Awaitable[None]]) -> NoReturn:
    """Take one step after the other until canceled: an error of one, however unforeseen, delays the next."""
    while True:
        try:
            await step()
        except (StorageUnavailable, UnknownOutcome) as error:
            log.warning("storage unavailable", extra={"action": "step_delayed", "error": str(error)})
            await asyncio.sleep(OUTAGE_DELAY_MS / 1000)
        except Exception:
            log.exception("a step failed", extra={"action": "step_failed"})
            await asyncio.sleep(OUTAGE_DELAY_MS / 1000)
