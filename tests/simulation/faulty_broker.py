"""The broker as one process sees it: it delivers late, twice, in another order, and forgets acknowledgements."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from perdure_runtime.adapters.queues import QueueConsumer
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RECEIVE_MAX, Delivery, SubscriptionType, Undeliverable
from perdure_schemas import topics
from perdure_schemas.messages import Message
from tests.simulation.virtual import at_once
from tests.simulation.world import Process, World

Received = Delivery | Undeliverable


class FaultyBroker:
    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    def publisher(self) -> FaultyPublisher:
        return FaultyPublisher(self._world, self._process)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> FaultyConsumer:
        world = self._world
        if type == "key-shared" and (world.any_worker if subscription == "workers" else world.any_engine):
            type = "shared"
        await world.step(self._process, f"subscribe {subscription}")
        consumer = FaultyConsumer(world, self._process, (namespace, topics, subscription, type))
        self._process.consumers.append(consumer)
        return consumer


class FaultyPublisher:
    """May die between two messages of a batch; may not be told of what was stored."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._inner = world.broker.publisher()

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        world, process = self._world, self._process
        dice, ledger = world.dice, world.ledger
        for topic, message in batch:
            kind = type(message.body).__name__
            await world.step(process, f"before publish {kind}")
            ledger.published(process.name, message, world.loop.time())
            world.watch.published(process.name, message)
            if dice.strikes(dice.faults.publish_error):
                ledger.fault("publish_error", world.loop.time(), f"{process.name} {kind}")
                if dice.rng.random() < 0.5:
                    self._store(topic, message)
                raise StorageUnavailable("simulated")
            self._store(topic, message)
            if dice.strikes(dice.faults.duplicate):
                ledger.fault("duplicate", world.loop.time(), kind)
                ledger.doubled(message)
                self._store(topic, message)
        await world.step(process, "after publish")
        for _, message in batch:
            ledger.confirmed(message)

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        await self._inner.publish_raw(topic, namespace, data, reason)

    def _store(self, topic: str, message: Message) -> None:
        world = self._world
        dice = world.dice
        if not dice.strikes(dice.faults.delay):
            at_once(self._inner.publish([(topic, message)]))
            return
        world.ledger.stats["delay"] += 1
        world.under_way += 1
        world.loop.call_later(dice.rng.uniform(0.0, dice.faults.delay_max), self._arrive, topic, message)

    def _arrive(self, topic: str, message: Message) -> None:
        self._world.under_way -= 1
        at_once(self._inner.publish([(topic, message)]))


class FaultyConsumer:
    """Loses acknowledgements and sessions. After a lost session it subscribes again, when its process is awake."""

    def __init__(
        self, world: World, process: Process, subscription: tuple[str, Sequence[str], str, SubscriptionType]
    ) -> None:
        self._world, self._process, self._subscription = world, process, subscription
        self._held: dict[Received, None] = {}
        self._inner: QueueConsumer | None = None
        self._paused = False
        self._closed = False
        self._connect()

    def _connect(self) -> QueueConsumer:
        if self._closed or self._process.dead:
            raise StorageUnavailable("this consumer is closed")
        if self._inner is None:
            self._inner = at_once(self._world.broker.subscribe(*self._subscription))
            if self._paused:
                at_once(self._inner.pause())
        return self._inner

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Received]:
        world, process = self._world, self._process
        while True:
            await world.step(process, "before receive")
            inner = self._connect()
            try:
                batch = await inner.receive(limit)
            except StorageUnavailable:
                if inner is self._inner:
                    raise
                continue  # the session was lost: the client connects again by itself
            self._held.update(dict.fromkeys(batch))
            for delivery in batch:
                if isinstance(delivery, Delivery):
                    self._note(delivery)
            await world.step(process, "after receive")
            return batch

    def _note(self, delivery: Delivery) -> None:
        world, process, message = self._world, self._process, delivery.message
        if process.service.startswith("worker"):
            world.ledger.delivered(message, delivery.redeliveries)
        elif process.service.startswith(("workflow-engine", "task-engine")):
            world.ledger.taken(process.name, self._subscription[2], message.key, world.loop.time())

    async def ack(self, deliveries: Sequence[Received]) -> None:
        world = self._world
        dice = world.dice
        await world.step(self._process, "before ack")
        inner = self._inner
        for delivery in deliveries:
            if inner is None or self._held.pop(delivery, True) is not None:
                continue  # of a session that is lost: the broker knows nothing of it
            if dice.strikes(dice.faults.lost_ack) and not delivery.topic.startswith(topics.inbox("")):
                world.ledger.fault("lost_ack", world.loop.time(), f"{self._process.name} {_kind(delivery)}")
                at_once(inner.nack([delivery], dice.rng.choice((0, 100, 1_500))))
            else:
                at_once(inner.ack([delivery]))
        await world.step(self._process, "after ack")

    async def nack(self, deliveries: Sequence[Received], delay_ms: int) -> None:
        mine = [delivery for delivery in deliveries if self._held.pop(delivery, True) is None]
        if mine and self._inner is not None:
            await self._inner.nack(mine, delay_ms)

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        return None if self._inner is None else self._inner.begin(self._still_held(deliveries))

    def spare(self, deliveries: Sequence[Delivery]) -> None:
        if self._inner is not None:
            self._inner.spare(self._still_held(deliveries))

    def _still_held(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Of a session that is lost the broker knows nothing."""
        return [delivery for delivery in deliveries if delivery in self._held]

    def lose_session(self, redelivery_ms: int) -> None:
        """The broker gives what this consumer holds, and its keys, to others."""
        inner, self._inner = self._inner, None
        self._held.clear()
        if inner is not None:
            inner.lose(redelivery_ms)

    async def pause(self) -> None:
        self._paused = True
        if self._inner is not None:
            await self._inner.pause()

    async def resume(self) -> None:
        self._paused = False
        if self._inner is not None:
            await self._inner.resume()

    async def close(self) -> None:
        self._closed = True
        inner, self._inner = self._inner, None
        self._held.clear()
        if inner is not None:
            await inner.close()


def _kind(delivery: Received) -> str:
    return type(delivery.message.body).__name__ if isinstance(delivery, Delivery) else "bytes"
