"""A broker for a worker: what it publishes is encoded, what it receives is decoded, its large values are fetched."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from perdure._payloads.edge import Edge, Later
from perdure_runtime.ports import RECEIVE_MAX, Broker, Consumer, Delivery, Publisher, SubscriptionType, Undeliverable
from perdure_schemas.messages import HistoryPage, Message

Received = Delivery | Undeliverable


class _CodedConsumer:
    """Deliveries with large values come a little later than those that came with them, which changes nothing: no order
    of messages is relied on. Until then they count as received.

    A page of a history is given out unopened: it may be a second one, or come too late, and its values may be many.
    Whoever still wants it opens it."""

    def __init__(self, consumer: Consumer, edge: Edge) -> None:
        self._consumer = consumer
        self._edge = edge
        self.ack = consumer.ack
        self.nack = consumer.nack
        self.begin = consumer.begin
        self.spare = consumer.spare
        self.pause = consumer.pause
        self.resume = consumer.resume
        self._opening: dict[asyncio.Task[None], Delivery] = {}
        self._opened: deque[Received] = deque()
        self._receiving: asyncio.Task[Sequence[Received]] | None = None

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Received]:
        if self._opening or self._opened or self._receiving is not None:
            return await self._receive_beside(limit)
        found = await self._consumer.receive(limit)
        waiting = [each for each in found if self._open(each)]
        if not waiting:
            return found
        return [each for each in found if each not in waiting] or await self._receive_beside(limit)

    def _open(self, received: Received) -> bool:
        """Whether it has to be fetched first. It stays the same delivery, since that is what is acknowledged."""
        if not isinstance(received, Delivery):
            return False
        received.message = self._edge.incoming(received.message)
        if isinstance(received.message.body, HistoryPage):
            return False
        opening = self._edge.open(received.message)
        if opening is None:
            return False
        self._opening[asyncio.ensure_future(self._finish(received, opening))] = received
        return True

    async def _finish(self, delivery: Delivery, opening: Later[Message]) -> None:
        delivery.message = await opening()

    async def _receive_beside(self, limit: int) -> Sequence[Received]:
        """While something is fetched: what comes first, of that and of what else there is room for."""
        try:
            while not self._opened:
                if self._receiving is None and len(self._opening) < limit:
                    self._receiving = asyncio.ensure_future(self._consumer.receive(limit - len(self._opening)))
                waited_for = [*self._opening, *([] if self._receiving is None else [self._receiving])]
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                self._take()
        except asyncio.CancelledError:
            await self._hand_back()
            raise
        return [self._opened.popleft() for _ in range(min(limit, len(self._opened)))]

    def _take(self) -> None:
        for task in [task for task in self._opening if task.done()]:
            self._opened.append(self._opening.pop(task))
            task.result()
        if self._receiving is not None and self._receiving.done():
            receiving, self._receiving = self._receiving, None
            self._opened.extend(each for each in receiving.result() if not self._open(each))

    async def _hand_back(self) -> None:
        """Nobody takes what is here any more."""
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait([self._receiving])
            if not self._receiving.cancelled() and self._receiving.exception() is None:
                self._opened.extend(self._receiving.result())
            self._receiving = None
        for task in self._opening:
            task.cancel()
        held = [*self._opening.values(), *self._opened]
        self._opening.clear()
        self._opened.clear()
        if held:
            await self._consumer.nack(held, 0)

    async def close(self) -> None:
        for task in (*self._opening, *([] if self._receiving is None else [self._receiving])):
            task.cancel()
        await self._consumer.close()


class _CodedPublisher:
    def __init__(self, publisher: Publisher, edge: Edge) -> None:
        self._publisher = publisher
        self._edge = edge
        self.publish_raw = publisher.publish_raw

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        await self._publisher.publish([(topic, self._edge.outgoing(message)) for topic, message in batch])


class CodedBroker:
    """The broker port, around another."""

    def __init__(self, broker: Broker, edge: Edge) -> None:
        self._broker = broker
        self._edge = edge

    def publisher(self) -> Publisher:
        publisher = self._broker.publisher()
        return _CodedPublisher(publisher, self._edge) if self._edge.encodes else publisher

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> Consumer:
        return _CodedConsumer(await self._broker.subscribe(namespace, topics, subscription, type), self._edge)
