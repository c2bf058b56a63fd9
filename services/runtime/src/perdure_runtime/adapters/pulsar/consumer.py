"""Consuming: one thread per topic waits for messages and hands them to the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import count, islice
from typing import Any, cast

import pulsar

from perdure_runtime.adapters.pulsar.begun import SUSPECT_MS, Begun, Firsts, Place, now_ms
from perdure_runtime.adapters.pulsar.client import Bridge
from perdure_runtime.adapters.pulsar.names import Family, family
from perdure_runtime.adapters.pulsar.publisher import CONSUMER_TYPES, KEYS_MAY_MOVE, REASON
from perdure_runtime.errors import AlreadyInUse, StorageUnavailable
from perdure_runtime.ports import RECEIVE_MAX, Delivery, SubscriptionType, Undeliverable
from perdure_schemas.codec import CodecError, decode

_NACK_MS = 100
"""The library's shortest: how long a message that was handed back stays away at least."""
_JOIN_S = 5.0
"""Closing wakes a thread at once. One that is still in the library when the interpreter ends would end it by abort."""
_ROOM_S = 1.0
"""What was asked for and finds no room after all goes to another worker after this time: most attempts are over sooner,
and what comes back is taken for what may have killed somebody."""
_LOST_S = 60.0
"""A way without a connection for so long, to brokers that answer, is made anew. The library (3.13) may have given it up
for good: it does, and says "start timeout", if the connection is lost within half a minute after the way was made."""
_READY_MAX = 1_000
"""Messages taken from the library and not yet asked for: enough for one tick, few enough for the memory."""


class _Held:
    """A message as the library knows it, while its delivery is ours."""

    __slots__ = ("inlet", "live", "place", "raw", "suspect")

    def __init__(self, inlet: _Inlet, raw: Any, *, at: float, age_ms: int) -> None:
        self.inlet = inlet
        self.raw = raw
        self.live = True
        id = raw.message_id()
        self.place: Place = (id.ledger_id(), id.entry_id(), id.batch_index())
        firsts = inlet.firsts
        self.suspect = age_ms > SUSPECT_MS if firsts is None else firsts.suspect(self.place, age_ms, at)
        """Whether another may have had it, and died of it."""


class _Inlet:
    """One way from a topic to a consumer, with its thread."""

    def __init__(self, owner: PulsarConsumer, topic: str, consumer: pulsar.Consumer) -> None:
        kind = family(topic)
        self.topic = topic
        self.firsts = owner.firsts.setdefault(topic, Firsts()) if kind.type == "shared" else None
        self._temporary = not kind.subscription
        self.consumer = consumer
        self.raw: Any = cast("Any", consumer)._consumer  # the asynchronous calls are there alone
        self._owner = owner
        self.on_demand = kind.prefetch == 0
        self._room = threading.Semaphore(0 if self.on_demand else _READY_MAX)
        self.closed = False
        self.open = 0
        """Messages that were received here, and neither acknowledged nor handed back."""
        self.wanted = 0
        """Asked for and not yet there, of a topic that is read on demand."""
        self.lost_at: float | None = None
        """When it was first seen without a connection, if it is."""
        self._thread = threading.Thread(target=self._read, name=f"pulsar-{topic}", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """One more message may come."""
        self._room.release()

    def close(self) -> None:
        self.closed = True
        self._room.release()
        for leave in (self.consumer.unsubscribe, self.consumer.close) if self._temporary else (self.consumer.close,):
            try:
                leave()
            except pulsar.PulsarException:
                pass  # others share the subscription, it was closed, or the broker is away: messages come again
        self._thread.join(_JOIN_S)

    def _read(self) -> None:
        while True:
            self._room.acquire()
            if self.closed:
                return
            try:
                raw = self.raw.receive()
            except pulsar.PulsarException as error:
                if not self.closed:
                    self._owner.bridge.call(self._owner.broken, str(error))
                return
            self._owner.bridge.call(
                self._owner.arrived, self, raw, time.monotonic(), now_ms() - raw.publish_timestamp()
            )


class PulsarConsumer:
    """All topics of one subscription in this process."""

    def __init__(self, bridge: Bridge, begun: Begun | None, *, connect: Callable[[str], pulsar.Consumer]) -> None:
        """
        Args:
            begun: where user code runs on what comes.
            connect: makes a consumer of the library, of a topic; blocking.
        """
        self.bridge = bridge
        self.ways = _Ways(self, connect)
        self._marks = None if begun is None else _Marks(begun)
        self.firsts: dict[str, Firsts] = {}
        """By topic."""
        self._ready: deque[_Held] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._delays = _Delays()
        self._error = ""
        self._paused = False
        self.closed = False

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery | Undeliverable]:
        await asyncio.sleep(0)  # a consumer that finds work each time must not starve the loop
        while True:
            if self._ready and not self._paused:
                head = list(islice(self._ready, limit))
                if self._marks is not None:
                    await self._marks.catch_up(head)
                if not self._paused and any(held.live for held in head):  # some may be handed back meanwhile
                    return [self._delivery(held) for held in head if held.live]
                continue
            if self._error or self.closed:
                raise StorageUnavailable(f"this consumer is closed: {self._error or 'by its owner'}")
            if not self._paused:
                self.ways.demand(limit)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        settled = _settle(deliveries)
        if self._marks is not None:
            self._marks.settled(settled)
        for held in settled:
            held.inlet.raw.acknowledge_async(held.raw, _ignore)
        if self._paused:
            self.ways.leave_idle(self._ready)

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        held = _settle(deliveries)
        if not held:
            return
        if self._marks is not None:
            self._marks.back(held)
        self._delays.hand_back(held, delay_ms)
        if self._paused:
            self.ways.leave_idle(self._ready)

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        return None if self._marks is None else self._marks.begin(_live(deliveries))

    def spare(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        return None if self._marks is None else self._marks.back(_live(deliveries))

    async def pause(self) -> None:
        """The library knows no pause: its consumers are closed, each once nothing that it received is open, since what
        is acknowledged goes through it. Until then what comes on demand is handed back, and what it has in store waits:
        the keys would come to it again."""
        self._paused = True
        async with self.ways.turning:
            if self._paused and not self.closed:
                on_demand = [held for held in self._ready if held.inlet.on_demand]
                _drop(self._ready, on_demand)
                _hand_back(on_demand)
                self.ways.leave_idle(self._ready)
                await self.ways.left()

    async def resume(self) -> None:
        async with self.ways.turning:
            if not self._paused or self.closed:
                return
            self._paused = False
            await self.ways.left()
            try:
                await self.ways.open_missing()
            except StorageUnavailable:
                self._paused = True
                self.ways.leave_idle(self._ready)
                raise
            self._wake()

    async def renew(self) -> None:
        """Make anew what has been without a connection for long. What it brought and is open comes again."""
        async with self.ways.turning:
            if self._paused or self.closed:
                return
            self.ways.leave_lost(self._ready)
            await self.ways.left()
            try:
                await self.ways.open_missing()
            except (StorageUnavailable, AlreadyInUse):
                return  # it is tried again
            self._wake()

    async def close(self) -> None:
        self.closed = True
        told = None if self._marks is None else self._marks.all_back()
        if told is not None:
            await told
        self._delays.cancel()
        self._ready.clear()
        self._wake()
        await self.ways.close()

    # -- called on the loop for the threads --------------------------------------------------------

    def arrived(self, inlet: _Inlet, raw: Any, at: float, age_ms: int) -> None:
        inlet.wanted = max(0, inlet.wanted - 1)
        if inlet.closed:
            return  # it came while that was being closed, which hands it back
        held = _Held(inlet, raw, at=at, age_ms=age_ms)
        if self._paused and inlet.on_demand:
            held.live = False
            _hand_back([held])
            return
        self._ready.append(held)
        if inlet.on_demand:
            asyncio.get_running_loop().call_later(_ROOM_S, self._no_room, held)
        self._wake()

    def _no_room(self, held: _Held) -> None:
        """It was asked for when there was room, which another message took: somebody else may have some."""
        if held in self._ready:
            _drop(self._ready, [held])
            _hand_back([held])

    def broken(self, error: str) -> None:
        self._error = error
        self._wake()

    # ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _delivery(self, held: _Held) -> Delivery | Undeliverable:
        self._ready.remove(held)
        held.inlet.open += 1
        if not held.inlet.on_demand:
            held.inlet.ask()
        raw, topic = held.raw, held.inlet.topic
        data, redeliveries = raw.data(), raw.redelivery_count()
        reason = raw.properties().get(REASON)
        if reason is None:
            try:
                deaths = 0 if self._marks is None else self._marks.deaths(held)
                return Delivery(topic=topic, message=decode(data), redeliveries=redeliveries, deaths=deaths, token=held)
            except CodecError as error:
                reason = str(error)
        return Undeliverable(topic=topic, data=data, error=reason, redeliveries=redeliveries, token=held)


def connected(consumer: PulsarConsumer) -> bool:
    """Whether brokers can deliver to it now, on every way, or it is closed."""
    return consumer.closed or consumer._paused or consumer.ways.connected()


class _Ways:
    """From the topics to one consumer: each is a consumer of the library."""

    def __init__(self, owner: PulsarConsumer, connect: Callable[[str], pulsar.Consumer]) -> None:
        self._owner = owner
        self._connect = connect
        self._topics: Sequence[str] = ()
        self.inlets: list[_Inlet] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self.turning = asyncio.Lock()
        """Held while ways are made or left."""

    async def open(self, topics: Sequence[str]) -> None:
        """Each as often as it is there. Raises what `connect` does.

        Who looks meanwhile whether all ways are there must not make those that are about to come.
        """
        async with self.turning:
            self._topics = topics
            await self.open_missing()

    def _missing(self) -> Counter[str]:
        return Counter(self._topics) - Counter(inlet.topic for inlet in self.inlets)

    async def open_missing(self) -> None:
        for topic in self._missing().elements():
            self.inlets.append(_Inlet(self._owner, topic, await asyncio.to_thread(self._connect, topic)))

    def connected(self) -> bool:
        now = time.monotonic()
        for inlet in self.inlets:
            connected = inlet.consumer.is_connected()
            inlet.lost_at = None if connected else inlet.lost_at or now
        return not self._missing() and all(inlet.lost_at is None for inlet in self.inlets)

    def demand(self, limit: int) -> None:
        """One message of each topic, so that none starves, and more while there is room for more."""
        outstanding = sum(inlet.wanted for inlet in self.inlets)
        asked = {inlet.topic for inlet in self.inlets if inlet.wanted}
        for inlet in self.inlets:
            if inlet.on_demand and not inlet.wanted and (outstanding < limit or inlet.topic not in asked):
                inlet.wanted = 1
                inlet.ask()
                outstanding += 1
                asked.add(inlet.topic)

    def leave_idle(self, ready: deque[_Held]) -> None:
        """Close those of which nothing is open; what they brought and is in `ready` goes to others with the rest."""
        self._leave([inlet for inlet in self.inlets if not inlet.open], ready)

    def leave_lost(self, ready: deque[_Held]) -> None:
        before = time.monotonic() - _LOST_S
        self._leave([inlet for inlet in self.inlets if inlet.lost_at is not None and inlet.lost_at <= before], ready)

    def _leave(self, leaving: Sequence[_Inlet], ready: deque[_Held]) -> None:
        for inlet in leaving:
            self.inlets.remove(inlet)
            inlet.closed = True
            _drop(ready, [held for held in ready if held.inlet is inlet])
            closing = asyncio.ensure_future(asyncio.to_thread(inlet.close))
            self._leaving.add(closing)
            closing.add_done_callback(self._leaving.discard)

    async def left(self) -> None:
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(inlet.close) for inlet in self.inlets))
        await self.left()


class _Delays:
    """Before what is handed back may come again: kept here, since the library knows one delay for all."""

    def __init__(self) -> None:
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._numbers = count()

    def hand_back(self, held: Sequence[_Held], delay_ms: int) -> None:
        if delay_ms <= _NACK_MS:
            _hand_back(held)
            return
        number = next(self._numbers)
        seconds = (delay_ms - _NACK_MS) / 1000
        self._timers[number] = asyncio.get_running_loop().call_later(seconds, self._over, number, held)

    def _over(self, number: int, held: Sequence[_Held]) -> None:
        del self._timers[number]
        _hand_back(held)

    def cancel(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class _Marks:
    """What has begun of what one consumer holds, where user code runs on it."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun
        self._mine: set[Place] = set()

    async def catch_up(self, held: Sequence[_Held]) -> None:
        if any(self._begun.deaths(each.place) for each in held):
            await self._begun.catch_up()

    def deaths(self, held: _Held) -> int:
        return self._begun.deaths(held.place)

    def begin(self, held: Sequence[_Held]) -> Awaitable[None] | None:
        self._mine.update(each.place for each in held)
        return self._begun.begin([(each.place, each.suspect) for each in held])

    def settled(self, held: Sequence[_Held]) -> None:
        self._begun.settled(self._left(held))

    def back(self, held: Sequence[_Held]) -> Awaitable[None] | None:
        return self._begun.back(self._left(held))

    def all_back(self) -> Awaitable[None] | None:
        return self._begun.back(list(self._mine))

    def _left(self, held: Sequence[_Held]) -> list[Place]:
        """Of those that had begun."""
        places = [each.place for each in held if each.place in self._mine]
        self._mine.difference_update(places)
        return places


def _live(deliveries: Sequence[Delivery | Undeliverable]) -> list[_Held]:
    """Those that their consumer still holds."""
    tokens = [delivery.token for delivery in deliveries]
    return [held for held in tokens if isinstance(held, _Held) and held.live and not held.inlet.closed]


def _settle(deliveries: Sequence[Delivery | Undeliverable]) -> list[_Held]:
    """As `_live`; from now on they are not."""
    found = _live(deliveries)
    for held in found:
        held.live = False
        held.inlet.open -= 1
    return found


def _drop(ready: deque[_Held], dropped: Sequence[_Held]) -> None:
    """They will not be received."""
    for held in dropped:
        ready.remove(held)
        held.live = False


def _hand_back(held: Sequence[_Held]) -> None:
    for each in held:
        if not each.inlet.closed:  # that handed it back
            each.inlet.raw.negative_acknowledge(each.raw)


def _ignore(result: object) -> None:
    """An acknowledgement that is lost brings the message again, which every handler survives."""


def subscribe(
    client: pulsar.Client, name: str, subscription: str, *, type: SubscriptionType, kind: Family
) -> pulsar.Consumer:
    """Blocking.

    Raises:
        AlreadyInUse: another consumer has the subscription for itself.
        StorageUnavailable: the broker cannot be reached.
    """
    try:
        return client.subscribe(
            name,
            subscription,
            consumer_type=CONSUMER_TYPES[type],
            key_shared_policy=KEYS_MAY_MOVE,
            receiver_queue_size=kind.prefetch,
            negative_ack_redelivery_delay_ms=_NACK_MS,
            initial_position=pulsar.InitialPosition.Earliest if kind.subscription else pulsar.InitialPosition.Latest,
        )
    except pulsar.ConsumerBusy as error:
        raise AlreadyInUse(f"another consumer has subscription {subscription} of {name} for itself") from error
    except pulsar.PulsarException as error:
        raise StorageUnavailable(f"Pulsar topic {name} cannot be subscribed to now: {error}") from error
