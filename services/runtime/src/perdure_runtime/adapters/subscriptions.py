"""Which consumer of a subscription gets which message, and when it comes again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol
from zlib import crc32

from perdure_runtime.errors import AlreadyInUse
from perdure_runtime.ports import Delivery, SubscriptionType, Undeliverable
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.messages import Message

INBOX_PREFIX = "inbox."
"""Topics of one instance: they live as long as their consumer and are in no journal."""

_MASK = (1 << 64) - 1


class Entry:
    """One message in one subscription."""

    __slots__ = (
        "begun", "data", "deaths", "id", "key", "message", "reason", "redeliveries", "restored", "subscription",
    )  # fmt: skip

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
        self.deaths = 0
        self.begun = False
        """User code runs on it, where it is held: it dies with whoever holds it."""
        self.restored = False
        """A process before this one left it, and may have died of it."""

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
        return Delivery(
            topic=topic, message=self.message, redeliveries=self.redeliveries, deaths=self.deaths, token=self
        )


class Inlet:
    """What waits for one consumer to take it: its own entries, and its share of the pools of shared subscriptions."""

    def __init__(self) -> None:
        self.shared: list[Subscription] = []
        self._ready: deque[Entry] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._ready)

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
        """Whether somebody waited and was not roused yet."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        waiter.set_result(None)
        return True

    async def wait(self) -> None:
        """Until there may be something to take."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self._waiter = None
            for subscription in self.shared:
                if subscription.pool:
                    subscription.wake_one()
            raise
        finally:
            self._waiter = None

    def take(self, limit: int) -> list[Entry]:
        ready = self._ready
        entries = [ready.popleft() for _ in range(min(limit, len(ready)))]
        for subscription in self.shared:
            pool = subscription.pool
            share = -(-len(pool) // len(subscription.members))
            entries += [pool.popleft() for _ in range(min(share, limit - len(entries)))]
        if self.shared:
            self.shared.append(self.shared.pop(0))  # no topic starves another
        return entries


class Member(Protocol):
    """A consumer, as its subscriptions see it."""

    @property
    def inlet(self) -> Inlet: ...

    @property
    def seed(self) -> int: ...

    def held_of(self, subscription: Subscription) -> Iterator[Entry]:
        """Entries of the subscription that it took, and neither acknowledged nor handed back."""
        ...


class Subscription:
    """A position in a topic that consumers share. Entries without a consumer wait in `pool`, in order."""

    __slots__ = ("members", "name", "namespace", "number", "pinned", "pool", "topic", "type")

    def __init__(self, namespace: str, topic: str, name: str, type: SubscriptionType, *, number: int) -> None:
        self.namespace = namespace
        self.topic = topic
        self.name = name
        self.type: SubscriptionType = type
        self.number = number
        """The journal's key."""
        self.members: list[Member] = []
        self.pool: deque[Entry] = deque()
        self.pinned: dict[str, tuple[Member, set[int]]] = {}
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
            target.inlet.push(entry)

    def requeue(self, entries: Iterable[Entry]) -> None:
        """Entries that were delivered and handed back: in front of all others, in their order."""
        for entry in sorted(entries, key=_by_id, reverse=True):
            target = self._target(entry)
            if target is None:
                self.pool.appendleft(entry)
                self.wake_one()
            else:
                target.inlet.push_front(entry)

    def wake_one(self) -> None:
        """Rouse one waiting member of a shared subscription, each in its turn."""
        if self.type != "shared":
            return
        for index, member in enumerate(self.members):
            if member.inlet.wake():
                self.members.append(self.members.pop(index))
                return

    def join(self, member: Member, type: SubscriptionType) -> None:
        """Raises AlreadyInUse: it is exclusive, or of another type."""
        if self.members and (type == "exclusive" or type != self.type):
            raise AlreadyInUse(
                f"subscription {self.name!r} of topic {self.topic!r} has a consumer ({self.type}); "
                f"it must leave before a consumer of type {type} can join"
            )
        self.type = type
        self._rebalance(lambda: self.members.append(member))
        if type == "shared":
            member.inlet.shared.append(self)

    def leave(self, member: Member) -> None:
        self._rebalance(lambda: self.members.remove(member))
        if self in member.inlet.shared:
            member.inlet.shared.remove(self)

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
            waiting += member.inlet.give_up(self)
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

    def _target(self, entry: Entry) -> Member | None:
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

    def _usual(self, key: str) -> Member:
        """The consumer of a key: rendezvous hashing, so that a change of members moves few keys."""
        if len(self.members) == 1:
            return self.members[0]
        hashed = crc32(key.encode())
        return max(self.members, key=lambda member: hashed * member.seed & _MASK)


class _Change(Protocol):
    def __call__(self) -> None: ...


def _by_id(entry: Entry) -> int:
    return entry.id
