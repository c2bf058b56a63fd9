"""The socket: lost connections, strangers, slow workers, reads."""

from __future__ import annotations

import asyncio
import stat
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.socket import SocketClient, SocketServer, connect, frames, serve
from perdure_runtime.errors import EngineDefect, InvalidCursor, MessageTooLarge, StorageUnavailable
from perdure_runtime.ports import UNBOUNDED, Delivery, Ports, Routing, RunFilter, Undeliverable
from tests.contracts.test_contract_records import changed
from tests.contracts.test_contract_store import KEY, commit, events
from tests.contracts.worlds import PATIENCE_S, SteppedClock, ids, message


def counts(deliveries: Sequence[Delivery | Undeliverable]) -> list[int]:
    return [delivery.redeliveries for delivery in deliveries]


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[Ports, SocketServer, SocketClient]]:
    ports = memory_ports(SteppedClock())
    server = await serve(ports, path / "s")
    client = await connect(path / "s")
    try:
        yield ports, server, client
    finally:
        await client.close()
        await server.close()


def test_only_its_owner_may_use_the_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600

    asyncio.run(scenario())


def test_a_lost_client_hands_back_what_it_held(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            consumer = await client.broker.subscribe("ns", ["t"], "s", "shared")
            await ports.broker.publisher().publish([("t", message("1")), ("t", message("2"))])
            held = await consumer.receive(1)
            assert ids(list(held)) == ["1"]
            await client.close()
            other = await ports.broker.subscribe("ns", ["t"], "s", "shared")
            found: list[Delivery | Undeliverable] = []
            while len(found) < 2:
                found += await other.receive()
            assert sorted(zip(ids(found), counts(found), strict=True)) == [("1", 1), ("2", 0)]

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_client_comes_back_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, server, client):
            consumer = await client.broker.subscribe("ns", ["t"], "s", "shared")
            await ports.broker.publisher().publish([("t", message("1"))])
            held = await consumer.receive()
            waiting = asyncio.ensure_future(consumer.receive())
            await server.close()
            with pytest.raises(StorageUnavailable, match="engine"):
                await client.broker.publisher().publish([("t", message("lost"))])
            again = await serve(ports, tmp_path / "s")
            found = await waiting
            assert (ids(list(found)), counts(found)) == (["1"], [1])
            await consumer.ack(held)  # of the lost connection: must not count for the new delivery
            await consumer.nack(found, 0)
            assert ids(list(await consumer.receive())) == ["1"]
            await again.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_slow_worker_holds_no_more_than_it_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            slow = await client.broker.subscribe("ns", ["t"], "s", "shared")
            await ports.broker.publisher().publish([("t", message(str(number))) for number in range(100)])
            assert len(await slow.receive(3)) == 3
            other = await ports.broker.subscribe("ns", ["t"], "s", "shared")
            taken = 0
            while taken < 97:
                taken += len(await other.receive())

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_MAX_BYTES", 2000)
    monkeypatch.setattr(frames, "PORTION_MAX_BYTES", 1000)


@pytest.mark.usefixtures("small_frames")
def test_a_batch_over_a_frame_is_sent_in_portions_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            sent = [str(number).zfill(300) for number in range(20)]
            here = await ports.broker.subscribe("ns", ["t"], "here", "shared")
            there = await client.broker.subscribe("ns", ["t"], "there", "shared")
            await client.broker.publisher().publish([("t", message(id)) for id in sent])
            for consumer in (here, there):
                found: list[Delivery | Undeliverable] = []
                while len(found) < len(sent):
                    found += await consumer.receive()
                assert ids(found) == sent

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


@pytest.mark.usefixtures("small_frames")
def test_an_answer_over_a_frame_is_refused_not_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            await ports.store.commit(commit(0, "r", 1, 100))
            with pytest.raises(MessageTooLarge, match="the limit is 2000"):
                await client.reads.history(KEY, "r", 0, 100, 100, bytes_max=UNBOUNDED)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 65 * 1024 * 1024),
        struct.pack(">I", 3) + b"\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_strangers_are_shown_out(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (_, _, client):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(data)
            assert await reader.read() == b""
            writer.close()
            await client.broker.publisher().publish([("t", message("others go on"))])

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_another_release_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with connected(tmp_path):
            hello = msgspec.msgpack.encode(frames.Hello(frames.PROTOCOL_VERSION + 1))
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(struct.pack(">I", len(hello)) + hello)
            answer = await reader.read()
            assert msgspec.msgpack.decode(answer[4:]) == [0, frames.PROTOCOL_VERSION, []]
            writer.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="no engine listens"):
        asyncio.run(connect(tmp_path / "s"))


def test_what_fails_in_an_unforeseen_way_is_answered_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            for port, method in ((ports.read_model, "counts"), (ports.broker, "subscribe")):
                monkeypatch.setattr(port, method, fails)
            with pytest.raises(EngineDefect, match=r"a call counts failed.*nobody foresaw this"):
                await client.reads.counts("ns")
            with pytest.raises(EngineDefect, match="nobody foresaw this"):
                await client.broker.subscribe("ns", ["t"], "s", "shared")
            assert await client.reads.get_run("ns", "a", None) is None
            with pytest.raises(InvalidCursor):
                await client.reads.list_runs("ns", RunFilter(), 1, "garbage")

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    told = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in told] == [
        "a call counts of the socket failed",
        "a request of the socket failed",
    ]


def test_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (ports, _, client):
            await ports.store.commit(commit(0, "r", 1, 5))
            assert list(await client.reads.history(KEY, "r", 1, 4, 9, bytes_max=UNBOUNDED)) == events(2, 4)
            await ports.read_model.apply([("ns", changed("a", 1)), ("ns", changed("b", 1))])
            page = await client.reads.list_runs("ns", RunFilter(tag="vip"), 5, None)
            assert [run.workflow_id for run in page.runs] == ["a"]
            first = await client.reads.list_runs("ns", RunFilter(), 1, None)
            assert len((await client.reads.list_runs("ns", RunFilter(), 1, first.cursor)).runs) == 1
            assert await client.reads.get_run("ns", "a", None) == changed("a", 1)
            assert await client.reads.counts("ns") == {"order": {"running": 2}}
            assert list(await client.reads.list_tasks("ns", "a", "r")) == []
            routing = Routing(current="b1", defaults=RunDefaults(run_timeout_ms=1, retention_ms=2**40))
            await client.reads.put_routing("ns", "order", routing)
            assert await client.reads.get_routing("ns", "order") == routing

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
