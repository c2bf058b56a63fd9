"""Messages as rows: one per message and subscription, from its publication to its acknowledgement.

A publish returns when it is committed. An acknowledgement goes with the next transaction, whoever's it is: a process
that dies before has the message delivered again, as one that dies before it acknowledges.
"""

from __future__ import annotations

import asyncio
from itertools import count

from perdure_runtime.adapters.queues import MESSAGE_MAX_BYTES, Queues
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.adapters.subscriptions import Entry, Subscription
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_runtime.ports import SubscriptionType

_INSERT = "INSERT INTO messages (id, subscription, key, data, reason) VALUES (?, ?, ?, ?, ?)"
_COUNT_DEATHS = "UPDATE messages SET deaths = ? WHERE id = ?"
_DELETE = "DELETE FROM messages WHERE id = ?"
_ACKNOWLEDGE_SECONDS_MAX = 0.01
"""When nothing else is written for so long, acknowledgements get a transaction of their own."""
_RETRY_SECONDS = 1.0
"""After that one failed: the disk is full, say."""


class SqliteJournal:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers = count(1)
        self._published: list[Entry] = []
        self._acknowledged: list[tuple[int]] = []
        """Ids of rows to delete; they stay until a transaction that deletes them is committed."""
        self._deleting = 0
        """How many of them the open transaction deletes."""
        self._timer: asyncio.TimerHandle | None = None
        database.riders.append(self)

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
        for id, number, key, data, reason, deaths in self._database.read(
            "SELECT id, subscription, key, data, reason, deaths FROM messages ORDER BY id"
        ):
            entry = Entry(id, subscriptions[number], key, None, data=data)
            entry.reason = reason
            entry.redeliveries, entry.deaths, entry.restored = 1, deaths, True
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
        self._database.group()
        self._published += entries
        await self._database.settled()

    async def begun_here(self, entries: list[Entry]) -> None:
        self._database.write_many(_COUNT_DEATHS, [(entry.deaths + 1, entry.id) for entry in entries])
        await self._database.settled()

    def count_deaths(self, entries: list[Entry]) -> None:
        rows = [(entry.deaths, entry.id) for entry in entries if not entry.subscription.ephemeral]
        try:
            self._database.write_many(_COUNT_DEATHS, rows)
        except StorageUnavailable:
            pass  # the disk is full: a death is forgotten, should this process end before the message does

    def acknowledge(self, entries: list[Entry]) -> None:
        self._acknowledged += [(entry.id,) for entry in entries if not entry.subscription.ephemeral]
        if self._timer is None and self._acknowledged:
            self._arm(_ACKNOWLEDGE_SECONDS_MAX)

    def _arm(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._write_acknowledged)

    def _write_acknowledged(self) -> None:
        self._timer = None
        if self._acknowledged:
            try:
                self._database.group()
            except StorageUnavailable:
                self._arm(_RETRY_SECONDS)

    def before_commit(self) -> None:
        rows = [
            (entry.id, entry.subscription.number, entry.key, entry.data, entry.reason)
            for entry in self._published
            if not entry.subscription.ephemeral
        ]
        if rows:
            self._database.write_many(_INSERT, rows)
        if self._acknowledged:
            self._deleting = len(self._acknowledged)
            self._database.write_many(_DELETE, self._acknowledged)

    def committed(self) -> None:
        if self._deleting:
            del self._acknowledged[: self._deleting]
            self._deleting = 0
        published, self._published = self._published, []
        for entry in published:
            entry.subscription.route(entry)

    def rolled_back(self) -> None:
        self._published.clear()
        self._deleting = 0
        if self._timer is None and self._acknowledged:
            self._arm(_RETRY_SECONDS)

    def close(self) -> None:
        """Write down what was acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
        if self._acknowledged:
            self._database.group()
            self._database.flush()
