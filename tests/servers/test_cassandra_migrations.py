"""How a keyspace becomes one of today's, and which releases may use it before and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.cassandra import (
    CassandraSettings,
    CassandraStores,
    WrongSchema,
    listed_runs,
    migrate,
    migrations,
    open_cassandra,
)
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.listed_runs import shard_of
from perdure_runtime.adapters.cassandra.migrations import LATEST
from perdure_runtime.adapters.cassandra.records import CassandraRouting
from perdure_runtime.adapters.cassandra.recount import recount
from perdure_runtime.ports import BuildCounts, Routing, RunFilter, RunKey
from tests.contracts.test_contract_records import changed, on_build, timer
from tests.contracts.worlds import SteppedClock
from tests.servers import clean, schema_three
from tests.servers.test_cassandra_stores import commit

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]
_MARKS = "SELECT version, usable_from FROM schema_version WHERE part = 'version'"


@asynccontextmanager
async def empty_keyspace() -> AsyncIterator[tuple[CassandraSettings, Connection]]:
    """One of the test's own, without tables; dropped in the end."""
    settings = clean.cassandra_settings(f"test_{uuid4().hex[:16]}")
    maker = await connect(settings, None)
    replication = f"{{'class': 'NetworkTopologyStrategy', '{settings.datacenter}': 1}}"
    await maker.run(f"CREATE KEYSPACE {settings.keyspace} WITH replication = {replication}")
    connection = await connect(settings, settings.keyspace)
    try:
        yield settings, connection
    finally:
        await connection.close()
        await maker.run(f"DROP KEYSPACE {settings.keyspace}")
        await maker.close()


async def check(settings: CassandraSettings) -> None:
    """As a service does when it starts."""
    async with open_cassandra(settings, SteppedClock()):
        pass


async def test_migrations_run_twice_and_at_once_and_an_older_keyspace_is_refused() -> None:
    async with empty_keyspace() as (settings, connection):
        assert list(await asyncio.gather(migrate(settings), migrate(settings))) == [LATEST, LATEST]
        assert await migrate(settings) == LATEST
        await connection.decide("UPDATE schema_version SET version = ? WHERE part = 'version' IF EXISTS", LATEST - 1)
        with pytest.raises(WrongSchema, match=f"this release needs {LATEST}: run `perdure admin migrate`"):
            await check(settings)


async def test_every_step_names_a_version_that_was_usable_before_it_or_its_own() -> None:
    """Who cannot use the tables after one step cannot use them after the next."""
    named = [step.usable_from for step in migrations._MIGRATIONS]
    assert named == sorted(named)
    assert all(1 <= usable_from <= number for number, usable_from in enumerate(named, 1))


async def test_a_newer_keyspace_that_says_so_is_used_and_left_as_it_is() -> None:
    async with empty_keyspace() as (settings, connection):
        await migrate(settings)
        await clean.migrate_by_the_next_release(settings, usable_from=LATEST)
        assert await migrate(settings) == LATEST + 1
        assert await connection.rows(_MARKS) == [(LATEST + 1, LATEST)]
        assert await recount(settings, "ns") == []
        async with open_cassandra(settings, SteppedClock()) as stores:
            await stores.routing.put("ns", "order", Routing(current="1"))
            assert await stores.routing.get("ns", "order") == Routing(current="1")


async def test_a_newer_keyspace_that_is_not_for_this_release_is_refused_with_what_to_do() -> None:
    async with empty_keyspace() as (settings, connection):
        await migrate(settings)
        await clean.migrate_by_the_next_release(settings, usable_from=LATEST + 1)
        told = (
            f"keyspace {settings.keyspace} has schema version {LATEST + 1}, usable by releases of schema version "
            f"{LATEST + 1} and newer; this one is of {LATEST}: use the newer release."
        )
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: check(settings), lambda: migrate(settings), lambda: recount(settings, "ns"),
        ]  # fmt: skip
        for attempt in attempts:
            with pytest.raises(WrongSchema) as refused:
                await attempt()
            assert str(refused.value) == told
        assert await connection.rows(_MARKS) == [(LATEST + 1, LATEST + 1)]


async def test_a_keyspace_from_before_the_mark_is_used_as_it_is_and_gets_it_by_a_migration() -> None:
    async with empty_keyspace() as (settings, connection):
        await schema_three.make_tables(connection, LATEST)
        await check(settings)
        await clean.migrate_by_the_next_release(settings, usable_from=LATEST)
        assert await connection.rows(_MARKS) == [(LATEST + 1, LATEST)]
        await check(settings)


async def test_a_full_keyspace_of_version_3_becomes_one_of_today_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, key = SteppedClock(), RunKey("ns", "w")
    fires = timer("a", clock.time + 1)
    same = [name for name in (f"w{number}" for number in range(100)) if shard_of(name) == shard_of("w0")]
    listed = [on_build("1", changed(same[0], 1)), on_build("2", changed(same[1], 2, "completed"))]
    async with empty_keyspace() as (settings, connection):
        await schema_three.make_tables(connection)
        for version in range(2):
            await schema_three.commit(connection, commit(key, version))
        await schema_three.list_runs(connection, "ns", listed)
        await schema_three.route(connection, "ns", "order", "1", "2", 10)
        await schema_three.put_timer(connection, "ns", 0, fires)
        with pytest.raises(WrongSchema, match="perdure admin migrate"):
            await check(settings)
        assert list(await asyncio.gather(migrate(settings), migrate(settings))) == [LATEST, LATEST]
        assert await connection.rows(_MARKS) == [(LATEST, migrations._MIGRATIONS[-1].usable_from)]

        clock.time += 1
        async with open_cassandra(settings, clock) as stores:
            await history_goes_on(stores, key)
            with monkeypatch.context() as counting:
                counting.setattr(listed_runs, "count_rows", None)  # what was counted is believed
                await lists_go_on(stores, same[0], same[1])
            await routing_goes_on(stores, connection)
            assert list(await stores.timers.due("ns", 0, clock.time, 10)) == [fires]


async def history_goes_on(stores: CassandraStores, key: RunKey) -> None:
    head, history = await stores.store.load(key)
    assert (head.version, head.run_id, head.runs) == (2, "r", 1)
    assert list(history) == [*commit(key, 0).events, *commit(key, 1).events]
    assert await stores.store.commit(commit(key, 2))
    assert [recorded.cause for recorded in (await stores.store.load(key))[1]] == ["m1", "m2", "m3"]


async def lists_go_on(stores: CassandraStores, running: str, completed: str) -> None:
    model = stores.read_model
    page = await model.list_runs("ns", RunFilter(), 10, None)
    assert sorted(run.workflow_id for run in page.runs) == sorted((running, completed))
    assert await model.counts("ns") == {"order": {"running": 1, "completed": 1}}
    of_1, of_2 = (BuildCounts(name="order", build=build, counts={}) for build in ("1", "2"))
    of_1.counts["running"], of_2.counts["completed"] = 1, 1
    assert list(await model.builds("ns")) == [of_1, of_2]
    await model.apply([("ns", on_build("2", changed(running, 3, "completed")))])
    of_2.counts["completed"] = 2
    assert list(await model.builds("ns")) == [of_2]
    assert await model.counts("ns") == {"order": {"completed": 2}}


async def routing_goes_on(stores: CassandraStores, connection: Connection) -> None:
    """Also while a replica of the former release writes."""
    assert await stores.routing.get("ns", "order") == Routing(current="1", ramping="2", ramping_percent=10)
    defaults = RunDefaults(run_timeout_ms=5, retention_ms=7)
    await stores.routing.put("ns", "order", Routing(current="2", defaults=defaults))
    assert await stores.routing.get("ns", "order") == Routing(current="2", defaults=defaults)
    await schema_three.route(connection, "ns", "order", "3", None, 0)
    assert await CassandraRouting(connection).get("ns", "order") == Routing(current="3", defaults=defaults)
