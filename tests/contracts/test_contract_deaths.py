"""A message counts the consumers that died of it once it had begun: not those that drained or only held it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from perdure_runtime.adapters.pulsar import PulsarBroker
from perdure_runtime.adapters.queues import QueueConsumer
from perdure_runtime.adapters.socket import connect, frames, serve
from perdure_runtime.adapters.sqlite import SqlitePorts, open_sqlite
from perdure_runtime.ports import Broker, Consumer, Delivery
from perdure_schemas import topics
from tests.contracts.worlds import BROKERS, PATIENCE_S, SteppedClock, message, open_ports
from tests.servers import clean

TOPIC = topics.task_run("t")
Die = Callable[[], Awaitable[None]]
Worker = tuple[Consumer, Die]
Scenario = Callable[[Broker, Callable[[], Awaitable[Worker]]], Awaitable[None]]


async def begin(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    marked = consumer.begin(deliveries)
    if marked is not None:
        await marked


async def take(broker: Broker) -> tuple[Consumer, Delivery]:
    """One message, and who has begun it."""
    consumer = await broker.subscribe("ns", [TOPIC], "workers", "shared")
    (delivery,) = await asyncio.wait_for(consumer.receive(1), PATIENCE_S)
    assert isinstance(delivery, Delivery)
    await begin(consumer, [delivery])
    return consumer, delivery


async def receive(consumer: Consumer, count: int) -> list[Delivery]:
    """Exactly this many, by their ids."""
    found: list[Delivery] = []
    while len(found) < count:
        batch = await asyncio.wait_for(consumer.receive(count - len(found)), PATIENCE_S)
        found += [each for each in batch if isinstance(each, Delivery)]
    return sorted(found, key=lambda each: each.message.id)


def deaths(deliveries: Sequence[Delivery]) -> list[int]:
    return [each.deaths for each in deliveries]


@asynccontextmanager
async def remote() -> AsyncIterator[tuple[Broker, Callable[[], Awaitable[Worker]]]]:
    """As `local`. What dies here is the connection, all of it, without a word of ours."""
    settings = clean.pulsar_settings()
    async with clean.pulsar_broker(["ns"], settings) as broker:

        async def worker() -> Worker:
            own = PulsarBroker(settings)

            async def die() -> None:
                await asyncio.to_thread(own._client.close)

            return await own.subscribe("ns", [TOPIC], "workers", "shared"), die

        yield broker, worker


@asynccontextmanager
async def local(kind: str, path: Path) -> AsyncIterator[tuple[Broker, Callable[[], Awaitable[Worker]]]]:
    """A broker, and workers of it that can die."""
    async with open_ports("sqlite" if kind == "socket" else kind, path, SteppedClock()) as ports:
        server = await serve(ports, path / "s")

        async def queue_worker() -> Worker:
            consumer = await ports.broker.subscribe("ns", [TOPIC], "workers", "shared")
            assert isinstance(consumer, QueueConsumer)

            async def die() -> None:
                consumer.lose()

            return consumer, die

        async def socket_worker() -> Worker:
            client = await connect(path / "s")
            return await client.broker.subscribe("ns", [TOPIC], "workers", "shared"), client.close

        try:
            yield ports.broker, socket_worker if kind == "socket" else queue_worker
        finally:
            await server.close()


@pytest.fixture(params=BROKERS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    async def world(scenario: Scenario) -> None:
        async with remote() if request.param == "pulsar" else local(request.param, tmp_path) as (broker, worker):
            await asyncio.wait_for(scenario(broker, worker), PATIENCE_S)

    return lambda scenario: asyncio.run(world(scenario))


def test_what_had_begun_counts_and_what_was_only_held_does_not(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker, worker: Callable[[], Awaitable[Worker]]) -> None:
        await broker.publisher().publish([(TOPIC, message(id)) for id in "123"])
        for died in range(4):
            consumer, die = await worker()
            held = await receive(consumer, 3)
            assert deaths(held) == [0, died, 0]
            await begin(consumer, held[1:2])
            await die()

    run(scenario)


def test_what_was_begun_and_handed_back_has_not_begun_for_the_next_one(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker, worker: Callable[[], Awaitable[Worker]]) -> None:
        await broker.publisher().publish([(TOPIC, message("1"))])
        for _ in range(3):
            consumer, die = await worker()
            held = await receive(consumer, 1)
            await begin(consumer, held)
            await consumer.nack(held, 0)
            again = await receive(consumer, 1)
            assert deaths(again) == [0]
            await begin(consumer, held)  # of a delivery that is over
            await die()

    run(scenario)


def test_what_is_spared_does_not_count(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker, worker: Callable[[], Awaitable[Worker]]) -> None:
        await broker.publisher().publish([(TOPIC, message(id)) for id in "12"])
        for died in range(3):
            consumer, die = await worker()
            held = await receive(consumer, 2)
            assert deaths(held) == [0, died]
            await begin(consumer, held)
            spared = consumer.spare(held[:1])
            if spared is not None:
                await spared
            await die()

    run(scenario)


DYING = """
import asyncio, os, sys
from perdure_runtime.adapters.socket import connect
async def main():
    consumer = await (await connect(sys.argv[1])).broker.subscribe("ns", ["task-run.t"], "workers", "shared")
    held = []
    while len(held) < 2:
        held += await consumer.receive(2)
    held.sort(key=lambda each: each.message.id)
    assert consumer.begin(held[:1]) is None
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def test_a_process_that_dies_at_once_has_begun(tmp_path: Path) -> None:
    """The mark has left it before user code runs."""

    async def scenario() -> None:
        async with local("socket", tmp_path) as (broker, worker):
            await broker.publisher().publish([(TOPIC, message(id)) for id in "12"])
            for _ in range(3):
                process = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(tmp_path / "s"))
                assert await asyncio.wait_for(process.wait(), PATIENCE_S) == -signal.SIGKILL
            consumer, _ = await worker()
            assert deaths(await receive(consumer, 2)) == [3, 0]

    asyncio.run(scenario())


def test_the_last_words_of_a_worker_count_also_if_its_death_shows_at_a_write(tmp_path: Path) -> None:
    def framed(*requests: msgspec.Struct) -> bytes:
        encoded = [msgspec.msgpack.encode(request) for request in requests]
        return b"".join(len(data).to_bytes(4, "big") + data for data in encoded)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with open_ports("memory", tmp_path, SteppedClock()) as ports:
            server = await serve(ports, tmp_path / "s")
            await ports.broker.publisher().publish([(TOPIC, message("1"))])
            worker = socket.socket(socket.AF_UNIX)
            worker.setblocking(False)
            await loop.sock_connect(worker, str(tmp_path / "s"))
            hello = frames.Hello(frames.PROTOCOL_VERSION)
            await loop.sock_sendall(worker, framed(hello, frames.Subscribe(1, 1, "ns", [TOPIC], "workers", "shared")))
            while not server._peers:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            (peer,) = server._peers
            while not peer._remotes:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await loop.sock_sendall(worker, framed(frames.Credit(1, 1)))
            holding = peer._remotes[1].consumer.holding
            while not list(holding):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            worker.send(framed(frames.Begin(1, [(entry.id, 0) for entry in holding])))
            worker.close()
            peer.connection.send(frames.Done([]))
            peer.connection._write()
            while server._peers:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            _, delivery = await take(ports.broker)
            assert delivery.deaths == 1
            await server.close()

    asyncio.run(scenario())


async def opened(path: Path) -> SqlitePorts:
    return await open_sqlite(path / "db.sqlite", SteppedClock())


def test_each_worker_that_is_gone_without_a_word_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_ports("memory", tmp_path, SteppedClock()) as ports:
            server = await serve(ports, tmp_path / "s")
            await ports.broker.publisher().publish([(TOPIC, message("1"))])
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
        await first.ports.broker.publisher().publish([(TOPIC, message("1"))])
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
                await engine.ports.broker.publisher().publish([(TOPIC, message("1"))])
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
                await engine.ports.broker.publisher().publish([(TOPIC, message("1"))])
                (tmp_path / "sent").touch()
            _, delivery = await take(engine.ports.broker)
            assert delivery.deaths == deaths
            await engine.close()  # and not the consumer: as a process that dies

    asyncio.run(scenario())


def test_what_was_handed_back_before_the_process_died_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await opened(tmp_path)
        await first.ports.broker.publisher().publish([(TOPIC, message("1"))])
        await first.close()
        for _ in range(4):
            engine = await opened(tmp_path)
            consumer, delivery = await take(engine.ports.broker)
            assert delivery.deaths == 0
            await consumer.nack([delivery], 60_000)
            await engine.close()

    asyncio.run(scenario())
