"""The broker port on Apache Pulsar: durable once the brokers confirm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pulsar

from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_runtime.adapters.pulsar.begun import Begun
from perdure_runtime.adapters.pulsar.client import Bridge, open_client
from perdure_runtime.adapters.pulsar.consumer import PulsarConsumer, connected, subscribe
from perdure_runtime.adapters.pulsar.greeting import trouble
from perdure_runtime.adapters.pulsar.letters import newest
from perdure_runtime.adapters.pulsar.names import address, family
from perdure_runtime.adapters.pulsar.publisher import Producers, PulsarPublisher
from perdure_runtime.adapters.pulsar.settings import PulsarSettings
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Delivery, SubscriptionType, Undeliverable

log = logging.getLogger("perdure.broker")

FETCHERS_MAX = 64
"""Of one subscription, and threads that sleep in the library. A worker with many tasks seldom has a crowd of each."""

WATCH_SECONDS = 2.0
"""Between two looks at whether consumers are connected: a broker's restart that takes less needs no word."""

__all__ = ["PulsarBroker", "PulsarSettings"]


class PulsarBroker:
    """Made inside a running loop, used from it alone. Closing it closes its consumers."""

    def __init__(self, settings: PulsarSettings) -> None:
        self._settings = settings
        self._client: pulsar.Client = open_client(settings)
        self._bridge = Bridge()
        self._producers = Producers(self._client, settings)
        self._consumers: list[PulsarConsumer] = []
        self._begun: dict[str, asyncio.Task[Begun]] = {}
        """By namespace: of those where user code runs here."""
        self._watching: asyncio.Task[None] | None = None

    def publisher(self) -> PulsarPublisher:
        return PulsarPublisher(self._producers, self._bridge)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> PulsarConsumer:
        """Raises what `consumer.subscribe` does; that the broker is away or refuses us, at once and with the reason."""
        reason = await trouble(self._settings)
        if reason:
            raise StorageUnavailable(reason)
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        deadly = any(family(topic).deadly for topic in topics)

        def connect(topic: str) -> pulsar.Consumer:
            name = address(self._settings.tenant, namespace, topic)
            return subscribe(self._client, name, subscription, type=type, kind=family(topic))

        begun = await self._begun_of(namespace) if deadly else None
        consumer = PulsarConsumer(self._bridge, begun, connect=connect)
        self._consumers = [other for other in self._consumers if not other.closed]
        self._consumers.append(consumer)
        most = max(1, FETCHERS_MAX // len(topics))
        try:
            await consumer.ways.open([topic for topic in topics for _ in range(min(family(topic).fetchers, most))])
        except BaseException:
            await consumer.close()
            raise
        return consumer

    async def _begun_of(self, namespace: str) -> Begun:
        opening = self._begun.get(namespace)
        if opening is None:
            opening = self._begun[namespace] = asyncio.ensure_future(self._open_begun(namespace))
        try:
            return await asyncio.shield(opening)
        except StorageUnavailable:
            self._begun.pop(namespace, None)
            raise

    async def _open_begun(self, namespace: str) -> Begun:
        begun = Begun(self._client, self._producers, self._bridge, tenant=self._settings.tenant, space=namespace)
        await begun.open()
        return begun

    async def dead_letters(self, namespace: str, limit: int) -> Sequence[Delivery | Undeliverable]:
        """As `DeadLetters` says; Pulsar keeps all of them, until they are taken."""
        async with open_admin(self._settings) as admin:
            return await newest(admin, namespace, limit)

    async def _watch(self) -> None:
        """Tell when brokers deliver no more, and when they do again: whoever receives only waits meanwhile."""
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if all(connected(consumer) for consumer in self._consumers):
                if away_since is not None:
                    extra = {"action": "broker_back", "away_s": round(loop.time() - away_since)}
                    log.warning("Pulsar delivers again", extra=extra)
                    away_since = None
                continue
            away_since = loop.time() if away_since is None else away_since
            reason = await trouble(self._settings)
            told = reason or "it answers, and does not serve our topics yet"
            log.warning("Pulsar does not deliver now", extra={"action": "broker_away", "error": told})
            if not reason:
                await asyncio.gather(*(consumer.renew() for consumer in self._consumers))

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(consumer.close() for consumer in self._consumers if not consumer.closed))
        for opened in await asyncio.gather(*self._begun.values(), return_exceptions=True):
            if isinstance(opened, Begun):
                await opened.close()
        await asyncio.to_thread(self._client.close)
