"""A message counts the consumers that died of it: not those that drained, nor the restarts of the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure_runtime.adapters.socket import connect, serve
from perdure_runtime.adapters.sqlite import SqlitePorts, open_sqlite
from perdure_runtime.ports import Broker, Consumer, Delivery
from tests.contracts.worlds import SteppedClock, message, open_ports


async def take(broker: Broker) -> tuple[Consumer, Delivery]:
    """One message, and who holds it."""
    consumer = await broker.subscribe("ns", ["t"], "workers", "shared")
    (delivery,) = await asyncio.wait_for(consumer.receive(1), 5)
    assert isinstance(delivery, Delivery)
    return consumer, delivery


async def opened(path: Path) -> SqlitePorts:
    return await open_sqlite(path / "db.sqlite", SteppedClock())


def test_each_worker_that_is_gone_without_a_word_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_ports("memory", tmp_path, SteppedClock()) as ports:
            server = await serve(ports, tmp_path / "s")
            await ports.broker.publisher().publish([("t", message("1"))])
            for deaths in range(4):
                client = await connect(tmp_path / "s")
                _, delivery = await take(client.broker)
                assert delivery.deaths == deaths
                await client.close()  # its consumer is still open
            await server.close()

    asyncio.run(scenario())


def test_workers_that_drain_and_engines_that_restart_do_not_count(tmp_path: Path) -> None:
    """Three deployments are no three deaths."""

    async def scenario() -> None:
        first = await opened(tmp_path)
        await first.ports.broker.publisher().publish([("t", message("1"))])
        await first.close()
        for _ in range(3):
            engine = await opened(tmp_path)
            server = await serve(engine.ports, tmp_path / "s")
            client = await connect(tmp_path / "s")
            consumer, delivery = await take(client.broker)
            assert delivery.deaths == 0
            await consumer.close()
            other, again = await take(client.broker)  # still held when the engine ends
            assert again.deaths == 0
            await server.close()
            await engine.close()
            await client.close()
            del other

    asyncio.run(scenario())


def test_a_death_is_remembered_over_restarts_of_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        for deaths in range(3):
            engine = await opened(tmp_path)
            server = await serve(engine.ports, tmp_path / "s")
            if not deaths:
                await engine.ports.broker.publisher().publish([("t", message("1"))])
            client = await connect(tmp_path / "s")
            _, delivery = await take(client.broker)
            assert delivery.deaths == deaths
            await client.close()
            while server._peers:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await server.close()
            await engine.close()

    asyncio.run(scenario())


def test_what_kills_its_engine_and_worker_in_one_process_counts_from_the_second_time_on(tmp_path: Path) -> None:
    """The first time nothing tells whether it had been delivered at all."""

    async def scenario() -> None:
        for deaths in (0, 0, 1, 2, 3):
            engine = await opened(tmp_path)
            if not (tmp_path / "sent").exists():
                await engine.ports.broker.publisher().publish([("t", message("1"))])
                (tmp_path / "sent").touch()
            _, delivery = await take(engine.ports.broker)
            assert delivery.deaths == deaths
            await engine.close()  # and not the consumer: as a process that dies

    asyncio.run(scenario())


def test_what_was_handed_back_before_the_process_died_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await opened(tmp_path)
        await first.ports.broker.publisher().publish([("t", message("1"))])
        await first.close()
        for _ in range(4):
            engine = await opened(tmp_path)
            consumer, delivery = await take(engine.ports.broker)
            assert delivery.deaths == 0
            await consumer.nack([delivery], 60_000)
            await engine.close()

    asyncio.run(scenario())
