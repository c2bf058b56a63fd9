"""A broker that counts what goes through it: metrics, and the truth about whether this process makes progress."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import cache, lru_cache
from time import monotonic
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RECEIVE_MAX, Broker, Consumer, Delivery, Publisher, SubscriptionType, Undeliverable
from perdure_runtime.service.patience import patiently
from perdure_schemas import topics
from perdure_schemas.events import RunEnded, Started
from perdure_schemas.messages import Message, RunChanged

_M = TypeVar("_M", Counter, Histogram)

_RECEIVED = Counter("perdure_messages_received", "Messages delivered to this process.", ["topic"])
_HANDLED = Counter("perdure_messages_handled", "Deliveries that ended.", ["topic", "outcome"])
_PUBLISHED = Counter("perdure_messages_published", "Messages confirmed by the broker.", ["topic"])
_BURIED = Counter("perdure_messages_dead", "Messages moved to a dead-letter topic.", ["topic"])
_SECONDS = Histogram(
    "perdure_message_seconds",
    "From delivery to acknowledgement.",
    ["topic"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
_OPEN = Gauge("perdure_messages_open", "Deliveries of this process not yet acknowledged.")
_STARTED = Counter("perdure_runs_started", "Runs recorded as started.", ["workflow"])
_ENDED = Counter("perdure_runs_ended", "Runs that ended.", ["workflow", "status"])

_OF_WORKERS = frozenset({"workflow-run", "task-run"})
"""Kinds of topics on whose messages user code runs."""
_TOPICS = 1_024
"""Whose kind is remembered: those of clients come and go."""


@cache
def _of(metric: _M, *labels: str) -> _M:
    """One series of a metric; the library looks it up under a lock each time."""
    return metric.labels(*labels)


@lru_cache(_TOPICS)
def kind_of(topic: str) -> str:
    """The topic's family: names of workflows, tasks, builds and instances would make a series each."""
    for family in ("workflow-run", "task-run", "inbox", "dlq"):
        if topic.startswith(f"{family}."):
            return family
    return topic


class Progress:
    """What is open, and since when."""

    def __init__(self) -> None:
        self.subscribed = 0
        """Consumers that are there."""
        self._since: dict[int, tuple[float, str]] = {}
        """Open deliveries by identity, oldest first."""
        self._settled_at = monotonic()

    @property
    def in_flight(self) -> int:
        """Attempts and turns received, and not yet answered and acknowledged."""
        return sum(kind in _OF_WORKERS for _, kind in self._since.values())

    def stalled_s(self) -> float:
        """For how long deliveries have been open while none ended; 0: nothing is open."""
        if not self._since:
            return 0.0
        oldest, _ = next(iter(self._since.values()))
        return monotonic() - max(oldest, self._settled_at)

    def delayed(self) -> None:
        """The broker is away: what is open ends when it is back, and no restart would help."""
        self._settled_at = monotonic()

    def opened(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        now = monotonic()
        for delivery in deliveries:
            kind = kind_of(delivery.topic)
            self._since[id(delivery)] = (now, kind)
            _of(_RECEIVED, kind).inc()
        _OPEN.set(len(self._since))

    def settled(self, deliveries: Sequence[Delivery | Undeliverable], outcome: str) -> None:
        self._settled_at = now = monotonic()
        for delivery in deliveries:
            opened = self._since.pop(id(delivery), None)
            if opened is None:
                continue
            _of(_HANDLED, opened[1], outcome).inc()
            if outcome == "acknowledged":
                _of(_SECONDS, opened[1]).observe(now - opened[0])
        _OPEN.set(len(self._since))


class _MeteredConsumer:
    def __init__(self, consumer: Consumer, progress: Progress) -> None:
        self._consumer = consumer
        self._progress = progress

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery | Undeliverable]:
        found = await self._consumer.receive(limit)
        self._progress.opened(found)
        return found

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        await self._consumer.ack(deliveries)
        self._progress.settled(deliveries, "acknowledged")

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        self._progress.settled(deliveries, "handed-back")
        await self._consumer.nack(deliveries, delay_ms)

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        return self._consumer.begin(deliveries)

    def spare(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        return self._consumer.spare(deliveries)

    async def pause(self) -> None:
        await self._consumer.pause()

    async def resume(self) -> None:
        await self._consumer.resume()

    async def close(self) -> None:
        self._progress.subscribed -= 1
        await self._consumer.close()


class _MeteredPublisher:
    def __init__(self, publisher: Publisher, progress: Progress) -> None:
        self._publisher = publisher
        self._progress = progress

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        try:
            await self._publisher.publish(batch)
        except StorageUnavailable:  # within half a minute, however long the outage lasts
            self._progress.delayed()
            raise
        for topic, message in batch:
            kind = kind_of(topic)
            _of(_PUBLISHED, kind).inc()
            if kind == "dlq":
                _of(_BURIED, topic.removeprefix(topics.dead_letters(""))).inc()
            elif isinstance(message.body, RunChanged):
                _count_runs(message.body)

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        await self._publisher.publish_raw(topic, namespace, data, reason)
        _of(_BURIED, topic.removeprefix(topics.dead_letters(""))).inc()


def _count_runs(change: RunChanged) -> None:
    for recorded in change.events:
        if isinstance(recorded.event, Started):
            _of(_STARTED, change.name).inc()
        elif isinstance(recorded.event, RunEnded):
            _of(_ENDED, change.name, change.status).inc()


class MeteredBroker:
    """The broker port, around another."""

    def __init__(self, broker: Broker, progress: Progress) -> None:
        self._broker = broker
        self._progress = progress

    def publisher(self) -> Publisher:
        return _MeteredPublisher(self._broker.publisher(), self._progress)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> Consumer:
        """Waits while the broker is away or refuses us."""
        consumer = await patiently(
            f"subscribe to {', '.join(topics)}",
            lambda: self._broker.subscribe(namespace, topics, subscription, type),
        )
        self._progress.subscribed += 1
        return _MeteredConsumer(consumer, self._progress)
