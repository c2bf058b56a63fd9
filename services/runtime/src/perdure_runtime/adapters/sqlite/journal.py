"""Messages as rows: one per message and subscription, from its publication to its acknowledgement."""

from __future__ import annotations

from itertools import count

from perdure_runtime.adapters.queues import MESSAGE_MAX_BYTES, QueueConsumer, Queues
from perdure_runtime.adapters.sqlite.database import Database, Group
from perdure_runtime.adapters.subscriptions import Entry, Subscription
from perdure_runtime.errors import MessageTooLarge
from perdure_runtime.ports import SubscriptionType

_INSERT = "INSERT INTO messages (id, subscription, key, data, reason) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM messages WHERE id = ?"


class _Batch:
    """What one group publishes and acknowledges."""

    __slots__ = ("acknowledged", "group", "published")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.published: list[Entry] = []
        self.acknowledged: list[tuple[QueueConsumer, list[Entry]]] = []


class SqliteJournal:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._batch: _Batch | None = None
        self._numbers = count(1)

    def restore(self, queues: Queues) -> None:
        """Fill the queues with what an earlier process left."""
        subscriptions: dict[int, Subscription] = {}
        for number, namespace, topic, name, type in self._database.read(
            "SELECT number, namespace, topic, name, type FROM subscriptions ORDER BY number"
        ):
            subscriptions[number] = Subscription(namespace, topic, name, type, number=number)
            queues.restore(subscriptions[number])
        self._numbers = count(max(subscriptions, default=0) + 1)
        last = 0
        for id, number, key, data, reason in self._database.read(
            "SELECT id, subscription, key, data, reason FROM messages ORDER BY id"
        ):
            entry = Entry(id, subscriptions[number], key, None, data=data)
            entry.reason = reason
            entry.redeliveries = 1  # the process before may have delivered it, and died of it
            entry.subscription.route(entry)
            last = id
        queues.ids = count(last + 1)

    def subscription(self, namespace: str, topic: str, name: str, type: SubscriptionType) -> Subscription:
        subscription = Subscription(namespace, topic, name, type, number=next(self._numbers))
        if not subscription.ephemeral:
            self._write_subscription(subscription)
        return subscription

    def rename(self, subscription: Subscription) -> None:
        self._write_subscription(subscription)

    def _write_subscription(self, of: Subscription) -> None:
        self._database.flush()  # it must not be rolled back with what others wrote
        self._database.write(
            "INSERT OR REPLACE INTO subscriptions (number, namespace, topic, name, type) VALUES (?, ?, ?, ?, ?)",
            (of.number, of.namespace, of.topic, of.name, of.type),
        )
        self._database.flush()

    async def publish(self, entries: list[Entry]) -> None:
        last: Entry | None = None
        for entry in entries:
            if last is not None and entry.message is last.message and entry.message is not None:
                entry.data = last.data
            size = len(entry.encoded())
            if size > MESSAGE_MAX_BYTES:
                raise MessageTooLarge(
                    f"a message of {size} bytes for {entry.subscription.topic!r}; "
                    f"the limit is {MESSAGE_MAX_BYTES} bytes"
                )
            last = entry
        self._open().published += entries
        await self._database.settled()

    async def acknowledge(self, consumer: QueueConsumer, entries: list[Entry]) -> None:
        self._open().acknowledged.append((consumer, entries))
        await self._database.settled()

    def _open(self) -> _Batch:
        group = self._database.group()
        batch = self._batch
        if batch is None or batch.group is not group:
            batch = self._batch = _Batch(group)
            group.before.append(self._write)
            group.after.append(self._done)
            group.failed.append(self._failed)
        return batch

    def _write(self) -> None:
        assert self._batch is not None
        rows = [
            (entry.id, entry.subscription.number, entry.key, entry.data, entry.reason)
            for entry in self._batch.published
            if not entry.subscription.ephemeral
        ]
        if rows:
            self._database.write_many(_INSERT, rows)
        gone = [
            (entry.id,)
            for _, entries in self._batch.acknowledged
            for entry in entries
            if not entry.subscription.ephemeral
        ]
        if gone:
            self._database.write_many(_DELETE, gone)

    def _done(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        for consumer, entries in batch.acknowledged:
            consumer.forget(entries)
        for entry in batch.published:
            entry.subscription.route(entry)

    def _failed(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        for consumer, entries in batch.acknowledged:
            consumer.unsettle(entries)
