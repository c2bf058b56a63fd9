"""Topics, subscriptions and consumers of a broker that lives in this process.

The memory and the SQLite adapter share it: they differ in the `Journal` alone, which makes a publish or an
acknowledgement durable. Nothing is handed to a consumer before its journal says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import count
from typing import Protocol
from zlib import crc32

from perdure_runtime.errors import AlreadyInUse, StorageUnavailable
from perdure_runtime.ports import Delivery, SubscriptionType, Undeliverable
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.messages import Message

MESSAGE_MAX_BYTES = 1024 * 1024
"""A larger value goes to the blob store by reference: brokers and their replicas copy every message whole."""

INBOX_PREFIX = "inbox."
"""Topics of one instance: they live as long as their consumer and are in no journal."""

BACKLOG = ""
"""Name of the subscription that keeps what is published to a topic before anybody subscribes."""

_MASK = (1 << 64) - 1


class Entry:
    """One message in one subscription."""

    __slots__ = ("data", "id", "key", "message", "reason", "redeliveries", "settled", "subscription")

    def __init__(
        self, id: int, subscription: Subscription, key: str, message: Message | None, *, data: bytes | None = None
    ) -> None:
        self.id = id
        """Grows in the order of publishing."""
        self.subscription = subscription
        self.key = key
        self.message = message
        """`None` until a consumer in this process wants it, if it came as bytes."""
        self.data = data
        self.reason: str | None = None
        """Set on a dead letter that is no message."""
        self.redeliveries = 0
        self.settled = False
        """Acknowledged, though perhaps not yet durably so."""

    def encoded(self) -> bytes:
        if self.data is None:
            assert self.message is not None
            self.data = encode(self.message)
        return self.data

    def delivery(self) -> Delivery | Undeliverable:
        topic = self.subscription.topic
        if self.message is None:
            assert self.data is not None
            error = self.reason
            if error is None:
                try:
                    self.message = decode(self.data)
                except CodecError as failure:
                    error = str(failure)
            if error is not None:
                return Undeliverable(
                    topic=topic, data=self.data, error=error, redeliveries=self.redeliveries, token=self
                )
        assert self.message is not None
        return Delivery(topic=topic, message=self.message, redeliveries=self.redeliveries, token=self)


class Subscription:
    """A position in a topic that consumers share. Entries without a consumer wait in `pool`, in order."""

    __slots__ = ("members", "name", "namespace", "number", "pinned", "pool", "topic", "type")

    def __init__(self, namespace: str, topic: str, name: str, type: SubscriptionType, *, number: int) -> None:
        self.namespace = namespace
        self.topic = topic
        self.name = name
        self.type = type
        self.number = number
        """The journal's key."""
        self.members: list[QueueConsumer] = []
        self.pool: deque[Entry] = deque()
        self.pinned: dict[str, tuple[QueueConsumer, set[int]]] = {}
        """key-shared: keys that stay at a consumer other than their usual one, while it holds these entries."""

    @property
    def ephemeral(self) -> bool:
        return self.topic.startswith(INBOX_PREFIX)

    def route(self, entry: Entry) -> None:
        """Give an entry to the consumer it belongs to, behind all others."""
        target = self._target(entry)
        if target is None:
            self.pool.append(entry)
            self.wake_one()
        else:
            target.push(entry)

    def requeue(self, entries: Iterable[Entry]) -> None:
        """Entries that were delivered and handed back: in front of all others, in their order."""
        for entry in sorted(entries, key=_by_id, reverse=True):
            target = self._target(entry)
            if target is None:
                self.pool.appendleft(entry)
                self.wake_one()
            else:
                target.push_front(entry)

    def wake_one(self) -> None:
        """Rouse one waiting member of a shared subscription, each in its turn."""
        if self.type != "shared":
            return
        for index, member in enumerate(self.members):
            if member.wake():
                self.members.append(self.members.pop(index))
                return

    def join(self, member: QueueConsumer, type: SubscriptionType) -> None:
        """Raises AlreadyInUse: it is exclusive, or of another type."""
        if self.members and (type == "exclusive" or type != self.type):
            raise AlreadyInUse(
                f"subscription {self.name!r} of topic {self.topic!r} has a consumer ({self.type}); "
                f"it must leave before a consumer of type {type} can join"
            )
        self.type = type
        self._rebalance(lambda: self.members.append(member))

    def leave(self, member: QueueConsumer) -> None:
        self._rebalance(lambda: self.members.remove(member))

    def release(self, entry: Entry) -> None:
        """An entry left its consumer: an unpinned key goes to its usual consumer again."""
        if not self.pinned:
            return
        pin = self.pinned.get(entry.key)
        if pin is not None:
            pin[1].discard(entry.id)
            if not pin[1]:
                del self.pinned[entry.key]

    def _rebalance(self, change: _Change) -> None:
        waiting = list(self.pool)
        for member in self.members:
            waiting += member.give_up(self)
        change()
        self.pool.clear()
        self.pinned.clear()
        if self.type == "key-shared":
            for member in self.members:
                for entry in member.held_of(self):
                    if self._usual(entry.key) is not member:
                        self.pinned.setdefault(entry.key, (member, set()))[1].add(entry.id)
        for entry in sorted(waiting, key=_by_id):
            self.route(entry)

    def _target(self, entry: Entry) -> QueueConsumer | None:
        if not self.members or self.type == "shared":
            return None
        if self.type != "key-shared":
            return self.members[0]
        if self.pinned:
            pin = self.pinned.get(entry.key)
            if pin is not None:
                pin[1].add(entry.id)
                return pin[0]
        return self._usual(entry.key)

    def _usual(self, key: str) -> QueueConsumer:
        """The consumer of a key: rendezvous hashing, so that a change of members moves few keys."""
        if len(self.members) == 1:
            return self.members[0]
        hashed = crc32(key.encode())
        return max(self.members, key=lambda member: hashed * member.seed & _MASK)


class _Change(Protocol):
    def __call__(self) -> None: ...


def _by_id(entry: Entry) -> int:
    return entry.id


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

    async def acknowledge(self, consumer: QueueConsumer, entries: list[Entry]) -> None:
        """Forget them for good, then call `consumer.forget`."""
        ...


class Queues:
    """Every topic of every namespace."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._topics: dict[tuple[str, str], list[Subscription]] = {}
        self.ids = count(1)
        self.seeds = count(1)

    def restore(self, subscription: Subscription) -> None:
        """Take over a subscription of a journal that was opened."""
        self._topics.setdefault((subscription.namespace, subscription.topic), []).append(subscription)

    def of_topic(self, namespace: str, topic: str) -> Sequence[Subscription]:
        """Where a message published to the topic goes; nowhere if it is an inbox that is gone."""
        found = self._topics.get((namespace, topic))
        if found is None:
            if topic.startswith(INBOX_PREFIX):
                return ()
            found = self._topics[namespace, topic] = [self._journal.subscription(namespace, topic, BACKLOG, "shared")]
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
            return found[0]
        found.append(self._journal.subscription(namespace, topic, name, type))
        return found[-1]

    def drop(self, subscription: Subscription) -> None:
        """An inbox whose consumer left."""
        self._topics.pop((subscription.namespace, subscription.topic), None)


class QueueConsumer:
    """A consumer in this process. One task at a time may receive from it."""

    def __init__(self, queues: Queues, journal: Journal) -> None:
        self._queues = queues
        self._journal = journal
        # Odd, for multiplicative hashing: each consumer ranks the keys in an order of its own.
        self.seed = int.from_bytes(blake2b(b"%d" % next(queues.seeds), digest_size=8).digest(), "big") | 1
        self._subscriptions: list[Subscription] = []
        self._shared: list[Subscription] = []
        self._ready: deque[Entry] = deque()
        self._held: dict[int, Entry] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def join(self, subscription: Subscription, type: SubscriptionType) -> None:
        subscription.join(self, type)
        self._subscriptions.append(subscription)
        if type == "shared":
            self._shared.append(subscription)

    async def receive(self, limit: int = 256) -> Sequence[Delivery | Undeliverable]:
        return [entry.delivery() for entry in await self.take(limit)]

    async def take(self, limit: int) -> list[Entry]:
        """What `receive` delivers, still encoded if it came so."""
        if self._ready:
            await asyncio.sleep(0)  # a consumer that finds work each time must not starve the loop
        while True:
            if self._closed:
                raise StorageUnavailable("this consumer is closed")
            entries = self._take(limit)
            if entries:
                return entries
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self._waiter = None
                for subscription in self._shared:
                    if subscription.pool:
                        subscription.wake_one()
                raise
            self._waiter = None

    def _take(self, limit: int) -> list[Entry]:
        ready, held = self._ready, self._held
        entries: list[Entry] = []
        while ready and len(entries) < limit:
            entries.append(ready.popleft())
        if self._shared:
            self._take_shared(entries, limit)
        for entry in entries:
            held[entry.id] = entry
        return entries

    def _take_shared(self, entries: list[Entry], limit: int) -> None:
        for subscription in self._shared:
            pool = subscription.pool
            share = -(-len(pool) // len(subscription.members))
            for _ in range(min(share, limit - len(entries))):
                entries.append(pool.popleft())
        self._shared.append(self._shared.pop(0))  # no topic starves another

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        await self.settle(self._tokens(deliveries))

    async def settle(self, entries: list[Entry]) -> None:
        """Acknowledge entries that this consumer took."""
        for entry in entries:
            entry.settled = True
        if entries:
            await self._journal.acknowledge(self, entries)

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        self.hand_back(self._tokens(deliveries), delay_ms)

    def hand_back(self, entries: Iterable[Entry], delay_ms: int) -> None:
        """Deliver entries that this consumer took again, not before the delay."""
        back = [entry for entry in entries if self._held.pop(entry.id, None) is not None]
        for entry in back:
            entry.redeliveries += 1
            entry.subscription.release(entry)
        if delay_ms > 0:
            asyncio.get_running_loop().call_later(delay_ms / 1000, _requeue, back)
        else:
            _requeue(back)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for subscription in self._subscriptions:
            subscription.leave(self)
            if subscription.ephemeral:
                self._queues.drop(subscription)
        self.hand_back([entry for entry in self._held.values() if not entry.settled], 0)
        self.wake()

    def forget(self, entries: Iterable[Entry]) -> None:
        """The journal has their acknowledgement."""
        for entry in entries:
            if self._held.pop(entry.id, None) is not None:
                entry.subscription.release(entry)

    def unsettle(self, entries: Iterable[Entry]) -> None:
        """The journal failed to record their acknowledgement."""
        for entry in entries:
            entry.settled = False
        if self._closed:
            self.hand_back(entries, 0)

    def held(self, id: int, redeliveries: int) -> Entry | None:
        """An entry whose delivery of that number is here, and neither acknowledged nor handed back."""
        entry = self._held.get(id)
        return entry if entry is not None and entry.redeliveries == redeliveries else None

    def held_of(self, subscription: Subscription) -> Iterator[Entry]:
        return (entry for entry in self._held.values() if entry.subscription is subscription)

    def push(self, entry: Entry) -> None:
        self._ready.append(entry)
        self.wake()

    def push_front(self, entry: Entry) -> None:
        self._ready.appendleft(entry)
        self.wake()

    def give_up(self, subscription: Subscription) -> list[Entry]:
        """Entries of the subscription that were not taken yet."""
        given = [entry for entry in self._ready if entry.subscription is subscription]
        self._ready = deque(entry for entry in self._ready if entry.subscription is not subscription)
        return given

    def wake(self) -> bool:
        """Whether it waited and was not roused yet."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        waiter.set_result(None)
        return True

    def _tokens(self, deliveries: Sequence[Delivery | Undeliverable]) -> list[Entry]:
        """Entries of those deliveries that are the latest of their message, and still held."""
        return [
            entry
            for delivery in deliveries
            if isinstance(entry := delivery.token, Entry) and self.held(entry.id, delivery.redeliveries) is entry
        ]


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

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        entries = [
            Entry(next(self._queues.ids), subscription, "", None, data=data)
            for subscription in self._queues.of_topic(namespace, topic)
        ]
        for entry in entries:
            entry.reason = reason
        await self._journal.publish(entries)


class QueueBroker:
    """The broker port over queues in this process."""

    def __init__(self, queues: Queues, journal: Journal) -> None:
        self._queues = queues
        self._journal = journal

    def publisher(self) -> QueuePublisher:
        return QueuePublisher(self._queues, self._journal)

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
