"""Services on memory ports, some of which can be told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.queues import QueuePublisher
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Delivery, Ports, Undeliverable
from perdure_schemas.messages import Body, Message

NAMESPACE = "ns"
PATIENCE_S = 60.0
"""What never comes fails the test."""
BodyT = TypeVar("BodyT")


class Hooked:
    """A port whose calls go through `before`, which may wait or raise, then to the real one."""

    def __init__(self, inner: Any, before: Callable[[str, tuple[Any, ...]], Awaitable[None]]) -> None:
        self._inner, self._before = inner, before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **named: Any) -> Any:
            await self._before(name, args)
            return await method(*args, **named)

        return call


class HookedBroker:
    """Its publishers are hooked; its consumers are the real ones."""

    def __init__(self, inner: Any, before: Callable[[str, tuple[Any, ...]], Awaitable[None]]) -> None:
        self._inner, self._before = inner, before
        self.subscribe = inner.subscribe

    def publisher(self) -> Any:
        return Hooked(self._inner.publisher(), self._before)


def hooked(ports: Ports, name: str, before: Callable[[str, tuple[Any, ...]], Awaitable[None]]) -> Ports:
    """The ports, with calls of one of them (of its publishers, for the broker) going through `before`."""
    inner: Any = getattr(ports, name)
    wrapped: Any = HookedBroker(inner, before) if name == "broker" else Hooked(inner, before)
    changed: dict[str, Any] = {name: wrapped}
    return replace(ports, **changed)


class World:
    """What a test sees of the services under test."""

    def __init__(self) -> None:
        self.ports = memory_ports(SystemClock())
        self._sent = 0

    @asynccontextmanager
    async def running(self, *services: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """None may end by itself."""
        tasks = [asyncio.ensure_future(service) for service in services]
        for _ in range(3):  # they subscribe
            await asyncio.sleep(0)
        try:
            yield
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, topic: str, key: str, body: Body) -> str:
        (id,) = await self.send_all(topic, key, body)
        return id

    async def send_all(self, topic: str, key: str, *bodies: Body) -> list[str]:
        """They are there together: no time passes between the first and the last."""
        messages = [self._message(key, body) for body in bodies]
        await self.ports.broker.publisher().publish([(topic, message) for message in messages])
        return [message.id for message in messages]

    def _message(self, key: str, body: Body) -> Message:
        self._sent += 1
        now = self.ports.clock.now()
        return Message(id=f"m{self._sent}", namespace=NAMESPACE, key=key, at=now, body=body, emitter="test")

    async def send_bytes(self, topic: str, data: bytes) -> None:
        publisher = self.ports.broker.publisher()
        assert isinstance(publisher, QueuePublisher)
        await publisher.publish_encoded(NAMESPACE, [(topic, "k", data)])

    async def open(self, topic: str) -> Reader:
        return Reader(await self.ports.broker.subscribe(NAMESPACE, [topic], "test", "shared"))


class Reader:
    """What comes on a topic, in order."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._ready: list[Delivery | Undeliverable] = []

    async def next(self) -> Delivery | Undeliverable:
        while not self._ready:
            self._ready += await asyncio.wait_for(self._consumer.receive(), PATIENCE_S)
            await self._consumer.ack(self._ready)
        return self._ready.pop(0)

    async def body(self, kind: type[BodyT]) -> BodyT:
        """The next of that kind."""
        while True:
            found = await self.next()
            if isinstance(found, Delivery) and isinstance(found.message.body, kind):
                return found.message.body
