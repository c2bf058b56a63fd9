"""A broker for a worker: what it publishes is encoded, what it receives is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from perdure._payloads.edge import Edge
from perdure_runtime.ports import Broker, Consumer, Delivery, Publisher, SubscriptionType, Undeliverable
from perdure_schemas.messages import Message


class _CodedConsumer:
    def __init__(self, consumer: Consumer, edge: Edge) -> None:
        self._consumer = consumer
        self._edge = edge
        self.ack = consumer.ack
        self.nack = consumer.nack
        self.begin = consumer.begin
        self.spare = consumer.spare
        self.close = consumer.close

    async def receive(self, limit: int = 256) -> Sequence[Delivery | Undeliverable]:
        found = await self._consumer.receive(limit)
        for delivery in found:
            if isinstance(delivery, Delivery):  # it stays the same delivery, since that is what is acknowledged
                delivery.message = self._edge.incoming(delivery.message)
        return found


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
        return _CodedPublisher(self._broker.publisher(), self._edge)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> Consumer:
        return _CodedConsumer(await self._broker.subscribe(namespace, topics, subscription, type), self._edge)
