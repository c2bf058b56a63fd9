"""Topics, subscriptions and consumers of a broker that lives in this process.

The memory and the SQLite adapter share it: they differ in the `Journal` alone, which makes a publish or an
acknowledgement durable. Nothing is handed to a consumer before its journal says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import count
from typing import Protocol

import msgspec

from perdure_runtime.adapters.retention import DEAD_LETTERS, kept
from perdure_runtime.adapters.subscriptions import INBOX_PREFIX, Entry, Inlet, Subscription
from perdure_runtime.announced import Announced, of_topics
from perdure_runtime.errors import AlreadyInUse, StorageUnavailable
from perdure_runtime.ports import RECEIVE_MAX, Delivery, SubscriptionType, Undeliverable
from perdure_schemas import topics
from perdure_schemas.messages import Message, RunTask, TaskChanged

log = logging.getLogger("perdure.broker")

MESSAGE_MAX_BYTES = 1024 * 1024
"""A larger value goes to the blob store by reference: brokers and their replicas copy every message whole."""

_OF_TASKS = topics.task_run("")
BACKLOG = ""
"""Name of the subscription that keeps what is published to a topic before anybody subscribes."""


class Journal(Protocol):
    """What makes a broker durable, or not."""

    def subscription(self, namespace: str, topic: str, name: str, type: SubscriptionType) -> Subscription:
        """A new subscription, empty."""
        ...

    def rename(self, subscription: Subscription) -> None:
        """Its name changed: a backlog found its first subscriber."""
        ...

    async def publish(self, entries: list[Entry]) -> None:
        """Make them durable, then route each; return when both are done."""
        ...

    async def begun_here(self, entries: list[Entry]) -> None:
        """User code of this process is about to run on entries that an earlier process left.

        If this one dies too, their deaths are one more when they are restored.
        """
        ...

    def count_deaths(self, entries: list[Entry]) -> None:
        """Write down their `deaths`, soon: nobody is about to die of them any more."""
        ...

    def acknowledge(self, entries: list[Entry]) -> None:
        """Forget them for good, soon: a process that dies before has them delivered again."""
        ...


class Queues:
    """Every topic of every namespace."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._topics: dict[tuple[str, str], list[Subscription]] = {}
        self._bounded: dict[Subscription, int] = {}
        """Those of which only the newest messages are kept, and how many."""
        self.ids = count(1)
        self.seeds = count(1)

    def restore(self, subscription: Subscription) -> None:
        """Take over a subscription of a journal that was opened."""
        self._topics.setdefault((subscription.namespace, subscription.topic), []).append(subscription)
        self._bound(subscription)

    def _bound(self, subscription: Subscription) -> None:
        most = kept(subscription.topic, subscription.name != BACKLOG)
        if most is not None:
            self._bounded[subscription] = most
        else:
            self._bounded.pop(subscription, None)

    def trim(self) -> None:
        """Drop what is over the bounds, the oldest first."""
        for subscription, most in self._bounded.items():
            dropped = [subscription.pool.popleft() for _ in range(len(subscription.pool) - most)]
            if dropped:
                extra = {"action": "messages_dropped", "topic": subscription.topic, "messages": len(dropped)}
                log.warning("nobody takes these messages: the oldest are dropped", extra=extra)
                self._journal.acknowledge(dropped)

    def dead_letters(self, namespace: str, limit: int) -> list[Entry]:
        """Newest first."""
        found = [
            entry
            for (space, topic), subscriptions in self._topics.items()
            if space == namespace and topic.startswith(DEAD_LETTERS)
            for entry in subscriptions[0].pool
        ]
        return sorted(found, key=lambda entry: entry.id, reverse=True)[:limit]

    def subscribed(self, namespace: str) -> list[str]:
        """Topics that somebody has subscribed to, now or before."""
        return [
            topic
            for (space, topic), found in self._topics.items()
            if space == namespace and any(subscription.name != BACKLOG for subscription in found)
        ]

    def consumed(self, namespace: str) -> list[str]:
        """Topics that somebody consumes now."""
        return [
            topic
            for (space, topic), found in self._topics.items()
            if space == namespace and any(subscription.members for subscription in found)
        ]

    def handed_back(self, namespace: str) -> Iterator[Message]:
        """Attempts of tasks that some worker had and none has now: theirs is gone, or gave them up."""
        for (space, topic), subscriptions in self._topics.items():
            if space != namespace or not topic.startswith(_OF_TASKS):
                continue
            for entry in (entry for each in subscriptions for entry in each.pool if entry.redeliveries):
                if isinstance(delivery := entry.delivery(), Delivery):
                    yield delivery.message

    def of_topic(self, namespace: str, topic: str) -> Sequence[Subscription]:
        """Where a message published to the topic goes; nowhere if it is an inbox that is gone."""
        found = self._topics.get((namespace, topic))
        if found is None:
            if topic.startswith(INBOX_PREFIX) or kept(topic, subscribed=False) == 0:
                return ()
            found = self._topics[namespace, topic] = [self._journal.subscription(namespace, topic, BACKLOG, "shared")]
            self._bound(found[0])
        return found

    def subscription(self, namespace: str, topic: str, name: str, type: SubscriptionType) -> Subscription:
        """The subscription, made if missing; the first of a topic takes what was kept for it."""
        found = self._topics.setdefault((namespace, topic), [])
        for subscription in found:
            if subscription.name == name:
                return subscription
        if found and found[0].name == BACKLOG:
            found[0].name = name
            self._journal.rename(found[0])
        else:
            found.append(self._journal.subscription(namespace, topic, name, type))
        self._bound(found[-1])
        return found[-1]

    def drop(self, subscription: Subscription) -> None:
        """An inbox whose consumer left."""
        self._topics.pop((subscription.namespace, subscription.topic), None)


class Holding:
    """What one consumer took, and neither acknowledged nor handed back. Its journal is told what becomes of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[int, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries[entry.id] = entry

    def find(self, id: int, redeliveries: int) -> Entry | None:
        """An entry whose delivery of that number is here."""
        entry = self._entries.get(id)
        return entry if entry is not None and entry.redeliveries == redeliveries else None

    def of(self, deliveries: Sequence[Delivery | Undeliverable]) -> list[Entry]:
        """Entries of those deliveries that are the latest of their message, and still here."""
        return [
            entry
            for delivery in deliveries
            if isinstance(entry := delivery.token, Entry) and self.find(entry.id, delivery.redeliveries) is entry
        ]

    def settle(self, entries: Iterable[Entry]) -> None:
        """Acknowledge those that are here."""
        settled = [entry for entry in entries if self._entries.pop(entry.id, None) is not None]
        if settled:
            self._journal.acknowledge(settled)
            for entry in settled:
                entry.subscription.release(entry)

    def begin(self, entries: Iterable[Entry]) -> None:
        """From now on they die with whoever received them."""
        for entry in entries:
            entry.begun = True

    def spare(self, entries: Sequence[Entry]) -> None:
        """They do not, after all."""
        for entry in entries:
            entry.begun = False
        restored = [entry for entry in entries if entry.restored]
        if restored:
            self._journal.count_deaths(restored)

    def release(self, entries: Iterable[Entry], *, died: bool) -> list[Entry]:
        """Those that are here, to be delivered again."""
        back = [entry for entry in entries if self._entries.pop(entry.id, None) is not None]
        changed = []
        for entry in back:
            begun, entry.begun = entry.begun, False
            entry.redeliveries += 1
            entry.deaths += begun and died
            entry.subscription.release(entry)
            if begun and (died or entry.restored):
                changed.append(entry)
        if changed:
            self._journal.count_deaths(changed)
        return back


class QueueConsumer:
    """A consumer in this process. One task at a time may receive from it."""

    def __init__(self, queues: Queues, journal: Journal) -> None:
        self._queues = queues
        self._journal = journal
        # Odd, for multiplicative hashing: each consumer ranks the keys in an order of its own.
        self.seed = int.from_bytes(blake2b(b"%d" % next(queues.seeds), digest_size=8).digest(), "big") | 1
        self.inlet = Inlet()
        self._subscriptions: list[Subscription] = []
        self.holding = Holding(journal)
        self._paused = False
        self._closed = False

    def join(self, subscription: Subscription, type: SubscriptionType) -> None:
        subscription.join(self, type)
        self._subscriptions.append(subscription)

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery | Undeliverable]:
        return [entry.delivery() for entry in await self.take(limit)]

    async def take(self, limit: int) -> list[Entry]:
        """What `receive` delivers, still encoded if it came so."""
        if self.inlet:
            await asyncio.sleep(0)  # a consumer that finds work each time must not starve the loop
        while True:
            if self._closed:
                raise StorageUnavailable("this consumer is closed")
            entries = self.inlet.take(limit)
            if entries:
                self.holding.add(entries)
                return entries
            await self.inlet.wait()

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        self.holding.settle(self.holding.of(deliveries))

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        self.hand_back(self.holding.of(deliveries), delay_ms)

    def hand_back(self, entries: Iterable[Entry], delay_ms: int) -> None:
        """Deliver entries that this consumer took again, not before the delay."""
        _requeue_later(self.holding.release(entries, died=False), delay_ms)

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        entries = self.holding.of(deliveries)
        self.holding.begin(entries)
        restored = [entry for entry in entries if entry.restored]
        return asyncio.ensure_future(_begun_here(self._journal, restored)) if restored else None

    def spare(self, deliveries: Sequence[Delivery]) -> None:
        self.holding.spare(self.holding.of(deliveries))

    async def pause(self) -> None:
        if self._paused or self._closed:
            return
        self._paused = True
        for subscription in self._subscriptions:
            subscription.leave(self)

    async def resume(self) -> None:
        if not self._paused or self._closed:
            return
        self._paused = False
        for subscription in self._subscriptions:
            subscription.join(self, subscription.type)
        self.inlet.wake()

    async def close(self) -> None:
        self._leave(died=False, delay_ms=0)

    def lose(self, delay_ms: int = 0) -> None:
        """Whoever received from it is gone without a word: what it had begun may have been the reason."""
        self._leave(died=True, delay_ms=delay_ms)

    def _leave(self, *, died: bool, delay_ms: int) -> None:
        if self._closed:
            return
        self._closed = True
        for subscription in self._subscriptions:
            if not self._paused:
                subscription.leave(self)
            if subscription.ephemeral:
                self._queues.drop(subscription)
        _requeue_later(self.holding.release(list(self.holding), died=died), delay_ms)
        self.inlet.wake()

    def held_of(self, subscription: Subscription) -> Iterator[Entry]:
        return (entry for entry in self.holding if entry.subscription is subscription)


async def _begun_here(journal: Journal, entries: list[Entry]) -> None:
    try:
        await journal.begun_here(entries)
    except StorageUnavailable:
        pass  # the disk is full: a death is forgotten, should this process end before it has room


def _requeue_later(back: list[Entry], delay_ms: int) -> None:
    if delay_ms > 0:
        asyncio.get_running_loop().call_later(delay_ms / 1000, _requeue, back)
    else:
        _requeue(back)


def _requeue(entries: list[Entry]) -> None:
    by_subscription: dict[int, list[Entry]] = {}
    for entry in entries:
        by_subscription.setdefault(id(entry.subscription), []).append(entry)
    for group in by_subscription.values():
        group[0].subscription.requeue(group)


class QueuePublisher:
    def __init__(self, queues: Queues, journal: Journal) -> None:
        self._queues = queues
        self._journal = journal

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        queues = self._queues
        entries = [
            Entry(next(queues.ids), subscription, message.key, message)
            for topic, message in batch
            for subscription in queues.of_topic(message.namespace, topic)
        ]
        if entries:
            await self._journal.publish(entries)
            self._queues.trim()

    async def publish_encoded(self, namespace: str, batch: Sequence[tuple[str, str, bytes]]) -> None:
        """As `publish`, of (topic, key, encoded message)."""
        queues = self._queues
        entries = [
            Entry(next(queues.ids), subscription, key, None, data=data)
            for topic, key, data in batch
            for subscription in queues.of_topic(namespace, topic)
        ]
        if entries:
            await self._journal.publish(entries)
            self._queues.trim()

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        entries = [
            Entry(next(self._queues.ids), subscription, "", None, data=data)
            for subscription in self._queues.of_topic(namespace, topic)
        ]
        for entry in entries:
            entry.reason = reason
        await self._journal.publish(entries)
        self._queues.trim()


class QueueBroker:
    """The broker port over queues in this process."""

    def __init__(self, queues: Queues, journal: Journal) -> None:
        self._queues = queues
        self._journal = journal

    def publisher(self) -> QueuePublisher:
        return QueuePublisher(self._queues, self._journal)

    async def dead_letters(self, namespace: str, limit: int) -> Sequence[Delivery | Undeliverable]:
        return [entry.delivery() for entry in self._queues.dead_letters(namespace, limit)]

    async def announced(self, namespace: str) -> Announced:
        """What workers have, now or before."""
        return of_topics(self._queues.subscribed(namespace))

    async def served(self, namespace: str) -> Announced:
        """What workers have that are connected."""
        return of_topics(self._queues.consumed(namespace))

    def as_held(self, namespace: str, tasks: Sequence[TaskChanged]) -> list[TaskChanged]:
        """Tasks as the task engine tells of them, but those as queued that no worker has any more: the task engine
        hears of that only from the next one. They keep the name of the worker that had them."""
        if not any(task.status == "running" for task in tasks):
            return list(tasks)
        bodies = (message.body for message in self._queues.handed_back(namespace))
        waiting = {(body.task_id, body.attempt) for body in bodies if isinstance(body, RunTask)}
        return [
            msgspec.structs.replace(task, status="queued")
            if task.status == "running" and (task.task_id, task.attempt) in waiting
            else task
            for task in tasks
        ]

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> QueueConsumer:
        """Raises AlreadyInUse: somebody holds it exclusively, or with another type."""
        consumer = QueueConsumer(self._queues, self._journal)
        try:
            for topic in topics:
                consumer.join(self._queues.subscription(namespace, topic, subscription, type), type)
        except AlreadyInUse:
            await consumer.close()
            raise
        return consumer
