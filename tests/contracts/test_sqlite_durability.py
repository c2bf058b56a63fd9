"""The SQLite file: killed writers, second owners, full disks, damaged rows, newer files."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from perdure import Client
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.sqlite import SqlitePorts, migrations, open_sqlite
from perdure_runtime.adapters.sqlite.migrations import NewerDatabase
from perdure_runtime.errors import AlreadyInUse, PerdureError, StorageContradiction, StorageUnavailable
from perdure_runtime.ports import Delivery, Routing, RunKey, Undeliverable
from perdure_schemas.codec import encode_change
from tests.contracts.test_contract_records import changed, on_build
from tests.contracts.test_contract_store import KEY, commit, events
from tests.contracts.worlds import PATIENCE_S, SteppedClock, ids, message

WRITER = Path(__file__).with_name("publisher_process.py")


@pytest.mark.parametrize("confirmations", [1, 150, 700])
def test_what_was_confirmed_survives_kill_nine(tmp_path: Path, confirmations: int) -> None:
    path = tmp_path / "db.sqlite"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, str(WRITER), str(path)], stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        for _ in range(confirmations):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    confirmed = int(rest[-1]) if rest else confirmations

    async def reopened() -> None:
        opened = await open_sqlite(path, SteppedClock())
        head, history = await opened.ports.store.load(RunKey("ns", "w"))
        assert head.seq in (confirmed, confirmed + 1)
        assert [event.seq for event in history] == list(range(1, head.seq + 1))
        consumer = await opened.ports.broker.subscribe("ns", ["t"], "s", "failover")
        found = list(await consumer.receive(1_000_000))
        assert ids(found) == [str(number) for number in range(1, head.seq + 1)], "one transaction: all or nothing"
        assert {delivery.redeliveries for delivery in found} == {1}
        await opened.close()

    asyncio.run(reopened())


@pytest.mark.parametrize(("asked", "level"), [(False, 1), (True, 2)])
def test_the_disk_is_waited_for_if_that_is_asked_for(asked: bool, level: int, tmp_path: Path) -> None:
    """NORMAL is 1, FULL is 2; asked as a program does, down to SQLite."""

    async def scenario() -> list[tuple[object, ...]]:
        async with Client.embedded(db=tmp_path / "db.sqlite", survive_power_loss=asked) as client:
            database = cast("Any", client)._backend._backend._store._database
            return list(database.read("PRAGMA synchronous"))

    assert asyncio.run(scenario()) == [(level,)]


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    async def scenario() -> set[int]:
        before = os.umask(0o022)
        try:
            opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        finally:
            os.umask(before)
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        await opened.close()
        return modes

    assert asyncio.run(scenario()) == {0o600}


def test_a_second_owner_is_told_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "db.sqlite"
        first = await open_sqlite(path, SteppedClock())
        assert issubclass(AlreadyInUse, PerdureError), "what users catch"
        with pytest.raises(AlreadyInUse, match=r"db\.sqlite is in use .* --db"):
            await open_sqlite(path, SteppedClock())
        await first.close()
        await (await open_sqlite(path, SteppedClock())).close()

    asyncio.run(scenario())


@contextmanager
def full(opened: SqlitePorts) -> Iterator[None]:
    """No page more fits into the file."""
    connection = opened._database._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    connection.execute("PRAGMA max_page_count = 100000")


def test_a_full_disk_rolls_back_and_hands_out_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        broker, store = opened.ports.broker, opened.ports.store
        consumer = await broker.subscribe("ns", ["t"], "s", "failover")
        many = [("t", message(f"{number}", "k" * 500)) for number in range(200)]
        with full(opened):
            outcomes = await asyncio.gather(
                broker.publisher().publish(many), store.commit(commit(0, "r", 1, 1)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 2
            assert "db.sqlite could not be written, nothing was changed: database or disk is full" in str(outcomes[0])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.receive(), 0.05)
            assert (await store.head(KEY)).version == 0
        assert await store.commit(commit(0, "r", 1, 1))
        await broker.publisher().publish([("t", message("after"))])
        assert ids(list(await consumer.receive())) == ["after"]
        await opened.close()

    asyncio.run(scenario())


def test_a_contradiction_is_no_outage_and_its_writer_s_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        broker, store = opened.ports.broker, opened.ports.store
        await store.commit(commit(0, "r1", 1, 1, "a"))
        await store.commit(commit(1, "r2", 1, 1, "b", after="r1"))
        outcomes = await asyncio.gather(
            broker.publisher().publish([("t", message("1"))]),
            store.commit(commit(2, "r1", 1, 1, "c", after="r2")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StorageUnavailable, StorageContradiction]
        assert (await store.load(KEY))[0].run_id == "r2"
        await broker.publisher().publish([("t", message("1"))])
        await opened.close()

    asyncio.run(scenario())


def test_what_is_acknowledged_while_the_disk_is_full_is_gone_once_there_is_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        broker = opened.ports.broker
        consumer = await broker.subscribe("ns", ["t"], "s", "failover")
        await broker.publisher().publish([("t", message(name)) for name in ("1", "2")])
        first, _ = await consumer.receive()
        many = [("t", message(f"{number}", "k" * 500)) for number in range(200)]
        with full(opened):
            await consumer.ack([first])
            with pytest.raises(StorageUnavailable):
                await broker.publisher().publish(many)  # rolls back the acknowledgement that went with it
        await broker.publisher().publish([("t", message("3"))])
        assert opened._database.read("SELECT id FROM messages") == [(2,), (203,)]
        await opened.close()

    asyncio.run(scenario())


def test_an_acknowledgement_alone_is_written_soon(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        broker = opened.ports.broker
        consumer = await broker.subscribe("ns", ["t"], "s", "failover")
        await broker.publisher().publish([("t", message("1"))])
        await consumer.ack(await consumer.receive())
        async with asyncio.timeout(PATIENCE_S):
            while opened._database.read("SELECT id FROM messages"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await opened.close()

    asyncio.run(scenario())


def test_a_commit_that_cannot_be_written_leaves_no_part_of_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SteppedClock())
        store = opened.ports.store
        wrong = commit(0, "r", 1, 1)
        surrogate = msgspec.structs.replace(wrong.events[0], cause="\ud800")
        results = await asyncio.gather(
            store.commit(msgspec.structs.replace(wrong, events=[surrogate])),
            opened.ports.broker.publisher().publish([("t", message("1"))]),
            return_exceptions=True,
        )
        assert isinstance(results[0], UnicodeEncodeError)
        assert results[1] is None
        assert (await store.head(KEY)).version == 0
        assert await store.commit(wrong)
        await opened.close()

    asyncio.run(scenario())


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "db.sqlite"
        opened = await open_sqlite(path, SteppedClock())
        broker = opened.ports.broker
        consumer = await broker.subscribe("ns", ["t"], "s", "key-shared")
        await broker.publisher().publish([("t", message(name)) for name in "1234"] + [("later", message("5"))])
        first = await consumer.receive()
        await consumer.ack([first[0], first[2]])
        await opened.ports.store.commit(commit(0, "r", 1, 3))
        await opened.close()
        opened = await open_sqlite(path, SteppedClock())
        consumer = await opened.ports.broker.subscribe("ns", ["t"], "s", "key-shared")
        assert ids(list(await consumer.receive())) == ["2", "4"]
        later = await opened.ports.broker.subscribe("ns", ["later"], "s", "failover")
        assert ids(list(await later.receive())) == ["5"]
        head, history = await opened.ports.store.load(KEY)
        assert (head.version, list(history)) == (1, events(1, 3))
        await opened.close()

    asyncio.run(scenario())


def test_a_damaged_message_does_not_stop_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "db.sqlite"
        opened = await open_sqlite(path, SteppedClock())
        await opened.ports.broker.publisher().publish([("t", message(name)) for name in "123"])
        await opened.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE messages SET data = x'ff00' WHERE id = 2")
        connection.close()
        opened = await open_sqlite(path, SteppedClock())
        consumer = await opened.ports.broker.subscribe("ns", ["t"], "s", "failover")
        found = await consumer.receive()
        assert [type(delivery) for delivery in found] == [Delivery, Undeliverable, Delivery]
        await consumer.ack(found)
        await opened.close()

    asyncio.run(scenario())


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "db.sqlite"
        await (await open_sqlite(path, SteppedClock())).close()
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO schema_version VALUES (99)")
        connection.close()
        with pytest.raises(NewerDatabase, match="version 99"):
            await open_sqlite(path, SteppedClock())

    asyncio.run(scenario())


def test_runs_of_a_file_that_did_not_count_builds_are_counted_by_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [on_build("1", changed("a", 1)), on_build("1", changed("b", 1, "completed")), changed("c", 1)]

    async def scenario() -> None:
        path = tmp_path / "db.sqlite"
        with sqlite3.connect(path, isolation_level=None) as connection, monkeypatch.context() as former:
            former.setattr(migrations, "LATEST", 5)
            migrations.migrate(connection, str(path))
            for run in runs:
                row = (run.workflow_id, run.run_id, run.version, run.name, run.status, run.started_at)
                sql = "INSERT INTO listed_runs VALUES (NULL, 'ns', ?, ?, ?, ?, ?, ?, '', '', '', ?)"
                connection.execute(sql, (*row, encode_change(run)))
                connection.execute("INSERT INTO run_counts VALUES ('ns', ?, ?, 1)", (f"order {run.run_id}", run.status))
        connection.close()
        opened = await open_sqlite(path, SteppedClock())
        model = opened.ports.read_model
        await model.apply([("ns", on_build("2", changed("a", 2)))])
        assert [(each.build, each.counts) for each in await model.builds("ns")] == [
            (None, {"running": 1}), ("1", {"completed": 1}), ("2", {"running": 1}),
        ]  # fmt: skip
        assert await model.counts("ns") == {"order": {"running": 2, "completed": 1}}
        await opened.close()

    asyncio.run(scenario())


def test_routing_of_a_file_that_had_no_defaults_is_kept_and_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        path, clock = tmp_path / "db.sqlite", SteppedClock()
        with sqlite3.connect(path, isolation_level=None) as connection, monkeypatch.context() as former:
            former.setattr(migrations, "LATEST", 6)
            migrations.migrate(connection, str(path))
            connection.execute("INSERT INTO routing VALUES ('ns', 'order', '1', '2', 10)")
        connection.close()
        opened = await open_sqlite(path, clock)
        routing = Routing(current="1", ramping="2", ramping_percent=10)
        assert await opened.ports.routing.get("ns", "order") == routing
        routing = Routing(current="2", defaults=RunDefaults(run_timeout_ms=5, retention_ms=7))
        await opened.ports.routing.put("ns", "order", routing)
        await opened.close()
        again = await open_sqlite(path, clock)
        assert await again.ports.routing.get("ns", "order") == routing
        await again.close()

    asyncio.run(scenario())
