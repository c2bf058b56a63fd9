"""Publishing: every message is on its way at once, and one future waits for all their confirmations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

import _pulsar  # type: ignore[import-not-found]
import pulsar

from perdure_runtime.adapters.pulsar.client import Bridge
from perdure_runtime.adapters.pulsar.greeting import trouble
from perdure_runtime.adapters.pulsar.names import Family, address, family, is_inbox
from perdure_runtime.adapters.pulsar.settings import PulsarSettings
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_schemas.codec import encode
from perdure_schemas.messages import Message
from perdure_schemas.partition import partition

MESSAGE_MAX_BYTES = 1024 * 1024
"""A larger value goes to the blob store by reference: brokers and their replicas copy every message whole."""
_IN_FLIGHT_MAX = 2_000
"""Messages of one batch on their way together: bounds the library's queue, which refuses above its own limit."""
_QUEUE = 20_000
_SEND_TIMEOUT_MS = 15_000
"""After that the broker counts as away: the caller keeps its messages and comes again."""
_OVERDUE_S = 20.0
"""When the library should have said so, and did not: it (3.13) begins that time anew at every connection, and a broker
whose disk is full takes the connection away at every message."""
_BATCH_DELAY_MS = 1
"""A hop waits so long for company; halves the broker's work under load, and eight hops in a row still take no time."""
_BEFORE_FIRST = 0
"""Messages of a producer are numbered after this. If it is not told, the library (3.13) takes the number from the
broker, and once more at every new connection until something was confirmed: what waits to be sent again and what comes
then have the same numbers, and a broker that looks for duplicates confirms the latter and throws them away. No broker
knows any of our producers before: each gets a name of its own."""
_IDLE_S = 60.0
"""A producer of an inbox unused for so long is closed: its owner has gone, or has nothing to hear."""
Producer: TypeAlias = Any
"""Of the extension module: `pulsar.Producer` makes a schema's JSON anew for each message that it routes, which took
8 % of the samples of a busy workflow engine that held Python's lock, and 11 % of a worker's."""
_Way: TypeAlias = tuple[str, str, bool]
"""Namespace, topic, and whether several are published together."""
_LATE = (pulsar.Result.Timeout, pulsar.Result.AlreadyClosed)
"""What a producer answers that may never send again."""
REASON = "reason"
"""Property of a dead letter that is no message."""


class Producers:
    """Made when first needed: one per topic, and for several messages of a keyed one a second, which waits for company.

    A message alone in its batch only loses the time for which the batch is kept open, and keys hardly ever meet in one
    that more than one call fills.
    """

    def __init__(self, client: pulsar.Client, settings: PulsarSettings) -> None:
        self._client = client
        self._settings = settings
        self._made: dict[_Way, Producer] = {}
        self._making: dict[_Way, asyncio.Task[Producer]] = {}
        self._used: dict[_Way, float] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._asking: asyncio.Task[str] | None = None
        """What is wrong with the brokers: asked once for all that fails meanwhile, which may be thousands."""

    async def get(self, namespace: str, topic: str, several: bool = False) -> Producer:
        """The one for a message, or for `several` that are published together.

        Raises:
            StorageUnavailable: there is none yet, and none can be made.
        """
        way = namespace, topic, several
        if is_inbox(topic):
            self._used[way] = asyncio.get_running_loop().time()
        return self._made.get(way) or await self._make(way)

    async def _make(self, way: _Way) -> Producer:
        name = address(self._settings.tenant, *way[:2])
        task = self._making.get(way)
        if task is None:
            kind = family(way[1])
            batched = kind.batched and (way[2] or not kind.keyed)
            task = self._making[way] = asyncio.ensure_future(asyncio.to_thread(self._open, name, kind, batched))
            task.add_done_callback(lambda _: self._making.pop(way, None))
        try:
            producer = await asyncio.shield(task)
        except pulsar.PulsarException as error:
            raise await self.unavailable(f"Pulsar topic {name} cannot be published to now: {error}") from error
        self._made[way] = producer
        await self._close_idle()
        return producer

    def give_up(self, late: Collection[Producer]) -> None:
        """What they have not confirmed fails now, and is not sent once the broker is back: by then it would be old.

        Others are made when they are needed: the library (3.13) may have given up for good. It does, and says "start
        timeout", if a producer's connection is lost within half a minute after that was made.
        """
        for way in [way for way, producer in self._made.items() if producer in late]:
            closing = asyncio.ensure_future(asyncio.to_thread(_close, self._made.pop(way)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def unavailable(self, told: str) -> StorageUnavailable:
        """An error that gives the reason, if one can be found now, beside what the library told."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(trouble(self._settings))
        reason = await asyncio.shield(self._asking)
        if reason:
            return StorageUnavailable(f"{reason}; {told}")
        return StorageUnavailable(
            f"{told}. It answers at {self._settings.url}: see its log, and whether its disk is full"
        )

    def _open(self, name: str, kind: Family, batched: bool) -> Producer:
        if kind.subscription:
            self._keep(name, kind)
        settings = _pulsar.ProducerConfiguration()
        settings.schema(pulsar.schema.BytesSchema().schema_info())
        settings.initial_sequence_id(_BEFORE_FIRST)
        settings.send_timeout_millis(_SEND_TIMEOUT_MS)
        settings.max_pending_messages(_QUEUE)
        settings.max_pending_messages_across_partitions(_QUEUE)
        settings.batching_enabled(batched)
        settings.batching_max_publish_delay_ms(_BATCH_DELAY_MS)
        settings.batching_type(pulsar.BatchingType.KeyBased if kind.keyed else pulsar.BatchingType.Default)
        settings.message_router(_route)
        return cast("Any", self._client)._client.create_producer(name, settings)

    def _keep(self, name: str, kind: Family) -> None:
        """Make the subscription: what is published before its first consumer comes would be lost without it."""
        consumer = self._client.subscribe(
            name,
            kind.subscription,
            consumer_type=CONSUMER_TYPES[kind.type],
            key_shared_policy=KEYS_MAY_MOVE,
            receiver_queue_size=kind.prefetch,
            initial_position=pulsar.InitialPosition.Earliest,
        )
        consumer.close()

    async def _close_idle(self) -> None:
        old = asyncio.get_running_loop().time() - _IDLE_S
        for way in [way for way, used in self._used.items() if used < old]:
            del self._used[way]
            producer = self._made.pop(way, None)
            if producer is not None:
                await asyncio.to_thread(_close, producer)


def _close(producer: Producer) -> None:
    """Blocking. If the broker cannot be told, it is not used any more all the same."""
    try:
        producer.close()
    except pulsar.PulsarException:
        pass


CONSUMER_TYPES = {
    "key-shared": pulsar.ConsumerType.KeyShared,
    "shared": pulsar.ConsumerType.Shared,
    "failover": pulsar.ConsumerType.Failover,
    "exclusive": pulsar.ConsumerType.Exclusive,
}
KEYS_MAY_MOVE = pulsar.ConsumerKeySharedPolicy(allow_out_of_order_delivery=True)
"""A consumer that joins gets its keys at once, also those of which another still holds messages. No engine needs the
order, and brokers that keep it (seen with 4.0.8, apache/pulsar#23845) may never deliver what they held back."""


def _keyed(topic: str) -> bool:
    return family(topic).keyed


def _route(message: Any, partitions: int) -> int:
    """The project's own rule, the same in every language."""
    return _known_partition(message.partition_key(), partitions)


_known_partition = lru_cache(maxsize=20_000)(partition)
"""Of each key several messages are published within seconds. About 3 MB."""


def to_send(data: bytes, key: str = "", properties: dict[str, str] | None = None) -> Any:
    """A message as a producer takes it."""
    builder = _pulsar.MessageBuilder()
    builder.content(data)
    if key:
        builder.partition_key(key)
    for name, value in (properties or {}).items():
        builder.property(name, value)
    return builder.build()


class _Confirmations:
    """Counts the answers of one batch."""

    __slots__ = ("done", "failed", "late", "open")

    def __init__(self, count: int, done: asyncio.Future[None]) -> None:
        self.open = count
        self.done = done
        self.failed = ""
        self.late: list[Producer] = []
        """Those that may never send again."""

    def answer(self, producer: Producer, result: object) -> None:
        self.open -= 1
        if result != pulsar.Result.Ok:
            if result in _LATE:
                self.late.append(producer)
            self.failed = str(result)
        if self.open or self.done.done():
            return
        if self.failed:
            self.done.set_exception(StorageUnavailable(f"Pulsar did not confirm: {self.failed}"))
        else:
            self.done.set_result(None)

    def overdue(self, producers: Collection[Producer]) -> None:
        """They may never answer: the library forgets what waits in one that it cannot close properly."""
        if not self.done.done():
            self.late.extend(producers)
            self.done.set_exception(StorageUnavailable(f"Pulsar did not confirm: no answer for {_OVERDUE_S:.0f} s"))


class PulsarPublisher:
    def __init__(self, producers: Producers, bridge: Bridge) -> None:
        self._producers = producers
        self._bridge = bridge

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        encoded = [(topic, message, encode(message)) for topic, message in batch]
        for topic, _, data in encoded:
            if len(data) > MESSAGE_MAX_BYTES:
                raise MessageTooLarge(
                    f"a message for {topic} has {len(data):,} bytes; the limit is {MESSAGE_MAX_BYTES:,}"
                )
        for start in range(0, len(encoded), _IN_FLIGHT_MAX):
            await self._send(
                [(topic, message.namespace, message.key, data, None) for topic, message, data in
                 encoded[start : start + _IN_FLIGHT_MAX]]
            )  # fmt: skip

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        await self._send([(topic, namespace, "", data, {REASON: reason})])

    async def _send(self, batch: Sequence[tuple[str, str, str, bytes, dict[str, str] | None]]) -> None:
        ready = []
        of_topic = Counter(topic for topic, *_ in batch)
        for topic, namespace, key, data, properties in batch:
            producer = await self._producers.get(namespace, topic, several=of_topic[topic] > 1 and _keyed(topic))
            ready.append((producer, key, data, properties))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmations = _Confirmations(len(ready), done)
        answer, call = confirmations.answer, self._bridge.call
        for producer, key, data, properties in ready:
            try:
                producer.send_async(
                    to_send(data, key, properties),
                    lambda result, _, producer=producer: call(answer, producer, result),
                )
            except pulsar.PulsarException as error:
                answer(producer, str(error))
        used = {producer for producer, *_ in ready}
        overdue = asyncio.get_running_loop().call_later(_OVERDUE_S, confirmations.overdue, used)
        try:
            await done
        except StorageUnavailable as error:
            self._producers.give_up(confirmations.late)
            raise await self._producers.unavailable(str(error)) from error
        finally:
            overdue.cancel()
