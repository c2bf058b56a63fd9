"""Messages that cannot be handled leave their key free: counted by us, since brokers forget, then dead letters."""

from __future__ import annotations

from perdure_runtime.ports import Consumer, Publisher, Undeliverable
from perdure_schemas import topics

FAILURES_MAX = 5
"""Handling a message may fail so often (not counting outages); then it goes to the dead-letter topic."""


OUTAGE_DELAY_MS = 500
"""While a store or broker cannot work, messages come again after this time, however often."""


class FailureCounts:
    """Failures per message id, of messages not yet acknowledged."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def exhausted(self, message_id: str) -> bool:
        """Count one more failure; true when the message is to be given up."""
        count = self._counts.get(message_id, 0) + 1
        self._counts[message_id] = count
        return count >= FAILURES_MAX

    def forget(self, message_id: str) -> None:
        """It is acknowledged."""
        if self._counts:
            self._counts.pop(message_id, None)


async def bury_bytes(publisher: Publisher, consumer: Consumer, namespace: str, delivery: Undeliverable) -> None:
    """Move what could not be decoded to the dead-letter topic, confirmed, then acknowledge it."""
    await publisher.publish_raw(topics.dead_letters(delivery.topic), namespace, delivery.data, delivery.error)
    await consumer.ack([delivery])
