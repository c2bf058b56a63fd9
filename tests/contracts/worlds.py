"""The adapters under test, each opened the way its users open it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.socket import connect, serve
from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.ports import Broker, Delivery, Ports, Undeliverable
from perdure_schemas.messages import CancelTimer, Message
from tests.servers import clean

_STARTS = pytest.mark.timeout(600)
"""The first test on real servers may have to fetch and start them."""
LOCAL_STORES = ["memory", "sqlite"]
STORES = [*LOCAL_STORES, pytest.param("cassandra", marks=_STARTS)]
PATIENCE_S = 60.0
"""What never comes fails the test; what comes does so in a fraction of a second, and in many where everybody works."""
LOCAL_BROKERS = ["memory", "sqlite", "socket"]
BROKERS = [*LOCAL_BROKERS, pytest.param("pulsar", marks=_STARTS)]


class SteppedClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.time = 1_000_000

    def now(self) -> int:
        return self.time


Scenario = Callable[[Ports, SteppedClock], Awaitable[None]]
"""What is done to the ports of one kind; the clock stands until it is moved."""


@asynccontextmanager
async def open_ports(kind: str, path: Path, clock: SteppedClock) -> AsyncIterator[Ports]:
    if kind == "memory":
        yield memory_ports(clock)
        return
    if kind == "cassandra":
        async with clean.cassandra_ports(clock) as ports:
            yield ports
        return
    opened = await open_sqlite(path / "db.sqlite", clock)
    try:
        yield opened.ports
    finally:
        await opened.close()


@asynccontextmanager
async def open_broker(kind: str, path: Path) -> AsyncIterator[Broker]:
    if kind == "pulsar":
        async with clean.pulsar_broker(["ns", "ns2"]) as broker:
            yield broker
        return
    if kind != "socket":
        async with open_ports(kind, path, SteppedClock()) as ports:
            yield ports.broker
        return
    async with open_ports("sqlite", path, SteppedClock()) as ports:
        server = await serve(ports, path / "s")
        client = await connect(path / "s")
        try:
            yield client.broker
        finally:
            await client.close()
            await server.close()


def message(id: str, key: str = "k") -> Message:
    return Message(id=id, namespace="ns", key=key, at=1, body=CancelTimer(timer_id=id))


def ids(deliveries: list[Delivery | Undeliverable]) -> list[str]:
    return [delivery.message.id for delivery in deliveries if isinstance(delivery, Delivery)]
