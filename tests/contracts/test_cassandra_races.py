"""What only Cassandra can get wrong: steps of two processes that lie between each other's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure_runtime.adapters.cassandra.archives import Archives
from perdure_runtime.adapters.cassandra.chunks import Chunks
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.adapters.cassandra.read_model import CassandraReadModel
from perdure_runtime.adapters.cassandra.store import CassandraStore
from perdure_runtime.adapters.cassandra.timers import CassandraTimers
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Commit, Head, RunFilter, RunKey
from perdure_schemas.common import Address
from perdure_schemas.events import CancelRequested, Recorded
from perdure_schemas.messages import ScheduleTimer, TimerFired
from tests.contracts.test_contract_records import changed
from tests.contracts.worlds import SteppedClock
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
KEY = RunKey("ns", "w")
Step = Callable[[], Awaitable[None]]


class Paused:
    """A connection that does something else before the one statement that begins so."""

    def __init__(self, connection: Connection, before: str, step: Step) -> None:
        self._connection = connection
        self._before = before
        self._step: Step | None = step

    def check(self) -> None:
        """The statement was there."""
        assert self._step is None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)

        async def call(statement: Any, *values: Any, **options: Any) -> Any:
            step = self._step
            first = statement if isinstance(statement, str) else statement[0]
            cql = first if isinstance(first, str) else first[0]
            if step is not None and cql.startswith(self._before):
                self._step = None
                await step()
            return await method(statement, *values, **options)

        return call


def commit(run_id: str, version: int) -> Commit:
    recorded = Recorded(seq=version + 1, at=1, cause=f"{run_id}-{version}", event=CancelRequested(reason="", actor=""))
    head = Head(version=version + 1, run_id=run_id, seq=version + 1, runs=1)
    return Commit(
        key=KEY,
        expected_version=version,
        expected_run=run_id if version else "",
        head=head,
        events=[recorded],
        commit_id=f"c{version}",
        unborn_ttl_ms=None,
    )


@pytest.mark.parametrize(
    "before", ["INSERT INTO archives", "INSERT INTO archived_causes", "UPDATE commits SET archives = ? "]
)
def test_a_purge_leaves_nothing_of_what_is_archived_meanwhile(before: str) -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            clock = SteppedClock()
            store = CassandraStore(connection, clock)
            for version in range(3):
                assert await store.commit(commit("r", version))

            async def purge() -> None:
                assert await store.purge(KEY, "r", 3, 1_000)

            mover: Any = Paused(connection, before, purge)
            await Archives(mover, Chunks(mover)).move(KEY)
            left = set(await clean.used_tables(connection)) - {"tombstones"}
            heads = await connection.rows("SELECT version, run_id, archives, purging FROM commits")
            assert left <= {"commits"}
            assert set(heads) <= {(None, None, None, None)}
            assert await store.tombstone(KEY, "r")
            assert await store.find_cause(KEY, "r-1") is None

    asyncio.run(scenario())


class Died(Exception):
    """A process is no more."""


async def die() -> None:
    raise Died


def timer_in(clock: SteppedClock, milliseconds: int) -> ScheduleTimer:
    due_at = clock.time + milliseconds
    fires = TimerFired(workflow_id="w", run_id="r", kind="command", command_id="t", due_at=due_at)
    return ScheduleTimer(
        timer_id="t", due_at=due_at, target=Address("workflow-engine", "w"), fires=fires, message_id="m"
    )


def test_a_timer_that_a_frozen_owner_stored_too_stays_its_successors() -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            clock = SteppedClock()
            successor, timer = CassandraTimers(connection, clock, "successor"), timer_in(clock, 500)

            async def take_over() -> None:
                await successor.put("ns", 0, [timer])

            looked = "SELECT owner, until"
            owner = CassandraTimers(connection, clock, "frozen")
            await owner.next_due("ns", 0)  # it has the shard: the next look at the owner is the one after the write
            frozen: Any = Paused(connection, looked, take_over)
            owner._connection = frozen
            with pytest.raises(StorageUnavailable, match="another replica"):
                await owner.put("ns", 0, [timer])
            clock.time += 500
            assert list(await successor.due("ns", 0, clock.time, 10)) == [timer]

    asyncio.run(scenario())


def test_what_a_frozen_owner_stores_in_a_minute_that_is_gone_is_not_there_even_if_it_dies_at_once() -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            clock = SteppedClock()
            successor = CassandraTimers(connection, clock, "successor")

            async def take_over() -> None:
                clock.time += 10 * 60_000
                assert await successor.due("ns", 0, clock.time, 10) == []
                assert await connection.rows("SELECT minute FROM timer_minutes") == [(None,)], "the minute is gone"

            owner = CassandraTimers(connection, clock, "frozen")
            await owner.next_due("ns", 0)
            mortal: Any = Paused(connection, "SELECT owner, until", die)
            frozen: Any = Paused(mortal, "INSERT INTO timers", take_over)
            owner._connection = frozen
            with pytest.raises(Died):
                await owner.put("ns", 0, [timer_in(clock, 500)])
            frozen.check()
            assert await connection.rows("SELECT minute, fire_at FROM timers") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("before", ["DELETE FROM timers", "UPDATE timer_minutes SET noted = null"])
def test_a_minute_goes_with_all_that_is_in_it_though_its_owner_dies_meanwhile(before: str) -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            clock = SteppedClock()
            owner = CassandraTimers(connection, clock, "mortal")
            await owner.put("ns", 0, [timer_in(clock, 500)])
            clock.time += 500
            assert len(await owner.due("ns", 0, clock.time, 10)) == 1
            await owner.remove("ns", 0, ["t"])
            mortal: Any = Paused(connection, before, die)
            owner._connection = mortal
            clock.time += 10 * 60_000
            with pytest.raises(Died):
                await owner.due("ns", 0, clock.time, 10)
            clock.time += 10 * 60_000
            assert await CassandraTimers(connection, clock, "successor").due("ns", 0, clock.time, 10) == []
            assert await connection.rows("SELECT minute, fire_at FROM timers") == []
            assert await connection.rows("SELECT minute FROM timer_minutes") == [(None,)], "its owner alone"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("before", "seen"),
    [("INSERT INTO run_index", False), ("UPDATE listed_runs", False), ("UPDATE listed_runs", True)],
)
def test_a_run_that_is_forgotten_while_a_change_of_it_is_written_stays_forgotten(before: str, seen: bool) -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            rival = CassandraReadModel(connection)

            async def forget() -> None:
                await rival.forget("ns", "w", "w-run")

            late: Any = Paused(connection, before, forget)
            if seen:
                await rival.apply([("ns", changed("w", 1))])
            await CassandraReadModel(late).apply([("ns", changed("w", 2, "completed"))])
            late.check()
            assert await rival.counts("ns") == {}
            assert not (await rival.list_runs("ns", RunFilter(), 9, None)).runs

    asyncio.run(scenario())


@pytest.mark.parametrize("before", ["SELECT version, counts", "SELECT run_id, started_at", "UPDATE listed_runs"])
def test_a_change_that_is_written_while_its_run_is_forgotten_does_not_stay(before: str) -> None:
    async def scenario() -> None:
        async with clean.cassandra() as connection:
            rival = CassandraReadModel(connection)

            async def change() -> None:
                await rival.apply([("ns", changed("w", 1))])

            forgetting: Any = Paused(connection, before, change)
            await CassandraReadModel(forgetting).forget("ns", "w", "w-run")
            forgetting.check()
            assert await rival.counts("ns") == {}
            assert not (await rival.list_runs("ns", RunFilter(), 9, None)).runs

    asyncio.run(scenario())
