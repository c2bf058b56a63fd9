"""What Cassandra's stores promise beyond the contracts: large commits, archives, purges, leases, rivals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest

from perdure_runtime.adapters.cassandra import listed_runs, tails
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.listed_runs import BETWEEN, ListedRuns, shard_of
from perdure_runtime.adapters.cassandra.read_model import CassandraReadModel
from perdure_runtime.adapters.cassandra.store import CassandraStore
from perdure_runtime.adapters.cassandra.timers import LEASE_MS, CassandraTimers
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import BuildCounts, Commit, Head, RunFilter, RunKey, vacant_head
from perdure_schemas.codec import encode_change
from perdure_schemas.events import CancelRequested, Recorded
from perdure_schemas.messages import RunChanged
from tests.contracts.test_contract_records import changed, on_build, timer
from tests.contracts.worlds import SteppedClock
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
Scenario = Callable[[Connection, SteppedClock, str], Awaitable[None]]


@pytest.fixture
def run() -> Callable[[Scenario], None]:
    """Runs a scenario with a connection to empty tables."""
    clean.real_servers()

    async def world(scenario: Scenario) -> None:
        async with clean.cassandra() as connection:
            await asyncio.wait_for(scenario(connection, SteppedClock(), "ns"), 60)

    return lambda scenario: asyncio.run(world(scenario))


def commit(key: RunKey, version: int, size: int = 10) -> Commit:
    seq = version + 1
    event = Recorded(seq=seq, at=seq, cause=f"m{seq}", event=CancelRequested(reason="x" * size, actor=""))
    head = Head(version=seq, run_id="r", seq=seq, runs=1)
    return Commit(
        key=key,
        expected_version=version,
        expected_run="r" if version else "",
        head=head,
        events=[event],
        commit_id=f"c{seq}",
    )


def replace_head(made: Commit, *, run_id: str, runs: int) -> Commit:
    """The first commit of another run."""
    event = msgspec.structs.replace(made.events[0], seq=1)
    head = msgspec.structs.replace(made.head, run_id=run_id, seq=1, runs=runs)
    return msgspec.structs.replace(made, head=head, events=[event])


async def left(connection: Connection) -> list[str]:
    """Tables with rows, but for tombstones."""
    return [name for name in await clean.used_tables(connection) if name != "tombstones"]


def test_a_commit_of_five_megabytes_comes_back_whole_and_goes_whole(run: Callable[[Scenario], None]) -> None:
    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        key, big = RunKey(namespace, "w"), CassandraStore(connection, clock)
        large = commit(key, 0, 5 << 20)
        assert await big.commit(large)
        assert await big.commit(msgspec.structs.replace(large, commit_id="lost")) is False
        assert list((await big.load(key))[1]) == list(large.events)
        pieces = await connection.rows("SELECT commit_id FROM chunks WHERE namespace = ? ALLOW FILTERING", namespace)
        assert [row[0] for row in pieces] == ["c1"] * len(pieces), "the refused commit leaves no piece"
        assert len(pieces) == 6
        assert await big.purge(key, "r", 1, 1_000)
        assert await left(connection) == []

    run(scenario)


def test_what_is_archived_while_it_is_read_is_neither_lost_nor_doubled(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_TAIL_ROWS_MAX", 10)

    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        key, writer, reader = (
            RunKey(namespace, "w"),
            CassandraStore(connection, clock),
            CassandraStore(connection, clock),
        )
        written = asyncio.Event()

        async def read() -> None:
            while not written.is_set():
                head, history = await reader.load(key)
                assert [recorded.seq for recorded in history] == list(range(1, head.seq + 1))

        async def write() -> None:
            for version in range(60):
                assert await writer.commit(commit(key, version))
            written.set()

        await asyncio.gather(read(), write())
        await writer.close()
        archived = await connection.rows(
            "SELECT archives FROM commits WHERE namespace = ? AND workflow_id = 'w' LIMIT 1", namespace
        )
        assert archived[0][0] >= 2
        assert [each.seq for each in await reader.history(key, "r", 5, 55, 100)] == list(range(6, 56))
        assert await reader.find_cause(key, "m3") == ("r", 3)
        assert await reader.find_cause(key, "m60") == ("r", 60)
        assert await reader.purge(key, "r", 60, 1_000)
        assert await left(connection) == []
        assert await reader.tombstone(key, "r")

    run(scenario)


def test_large_commits_are_archived_too(run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they are more than a node takes in one batch."""
    monkeypatch.setattr(tails, "_TAIL_ROWS_MAX", 10)

    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        key, store = RunKey(namespace, "w"), CassandraStore(connection, clock)
        for version in range(11):
            assert await store.commit(commit(key, version, 900_000))
        await store.close()
        archived = await connection.rows(
            "SELECT archives FROM commits WHERE namespace = ? AND workflow_id = 'w' LIMIT 1", namespace
        )
        assert archived[0][0], "at least one"
        assert [recorded.seq for recorded in (await store.load(key))[1]] == list(range(1, 12))

    run(scenario)


def test_an_unborn_row_that_vanishes_leaves_the_count_of_runs(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an earlier run, which is kept, could be begun a second time."""
    monkeypatch.setattr("perdure_runtime.adapters.cassandra.store.EXPIRY_SLACK_S", 0)

    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        store, key = CassandraStore(connection, clock), RunKey(namespace, "w")
        assert await store.commit(commit(key, 0))
        second = replace_head(commit(key, 1), run_id="r2", runs=2)
        assert await store.commit(second)
        assert await store.purge(key, "r2", 2, 60_000)
        assert await store.head(key) == vacant_head(2)
        unborn = replace_head(commit(key, 0), run_id="", runs=2)
        assert await store.commit(msgspec.structs.replace(unborn, unborn_ttl_ms=1_000))
        async with asyncio.timeout(30):
            while (await store.head(key)).version:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await store.head(key) == vacant_head(2)

    run(scenario)


def test_a_write_without_an_answer_has_an_unknown_outcome(run: Callable[[Scenario], None]) -> None:
    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        settings = replace(clean.cassandra_settings(clean.keyspace()), request_timeout_s=0.0001)
        hasty = await connect(settings, settings.keyspace)
        key, patient = RunKey(namespace, "w"), CassandraStore(connection, clock)
        try:
            with pytest.raises(UnknownOutcome):
                await CassandraStore(hasty, clock).commit(commit(key, 0))
        finally:
            await hasty.close()
        won = await patient.commit(commit(key, 0))
        head, history = await patient.load(key)
        assert head.version == 1, f"recorded once, by the first or (here: {won}) by the second"
        assert [recorded.cause for recorded in history] == ["m1"]

    run(scenario)


def test_an_owner_that_sleeps_through_its_lease_loses_no_timer(run: Callable[[Scenario], None]) -> None:
    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        asleep, awake = SteppedClock(), clock
        first, second = CassandraTimers(connection, asleep, "first"), CassandraTimers(connection, awake, "second")
        now = clock.time
        await first.put(namespace, 0, [timer("a", now + 1)])
        assert await second.due(namespace, 0, now + 10, 10) == [], "the lease is held"
        awake.time += LEASE_MS + 1
        assert [each.timer_id for each in await second.due(namespace, 0, awake.time, 10)] == ["a"]
        with pytest.raises(StorageUnavailable, match="another replica"):
            await first.put(namespace, 0, [timer("b", now + 2)])  # so it is not acknowledged, and comes again
        await second.put(namespace, 0, [timer("b", now + 2)])
        await second.remove(namespace, 0, ["a"])
        assert [each.timer_id for each in await second.due(namespace, 0, awake.time, 10)] == ["b"]
        await second.remove(namespace, 0, ["b"])
        assert await second.due(namespace, 0, awake.time, 10) == []

    run(scenario)


def test_counts_are_exact_after_duplicates_and_rivals(run: Callable[[Scenario], None]) -> None:
    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        rivals = [CassandraReadModel(connection) for _ in range(2)]
        names = [f"w{number}" for number in range(20)]
        starts = [(namespace, on_build("1", changed(name, 1))) for name in names]
        ends = [(namespace, on_build("2", changed(name, 2, "completed"))) for name in names[:15]]
        await asyncio.gather(*(rival.apply(starts) for rival in rivals))
        await asyncio.gather(rivals[0].apply(ends[:10]), rivals[1].apply(ends[5:]), rivals[1].apply(starts))
        await asyncio.gather(*(rival.forget(namespace, names[0], f"{names[0]}-run") for rival in rivals))
        await rivals[1].apply([starts[0], ends[0]])  # late: the run is forgotten
        expected = {"order": {"completed": 14, "running": 5}}
        assert await rivals[0].counts(namespace) == await rivals[1].counts(namespace) == expected
        running, completed = [
            BuildCounts(name="order", build=build, counts={status: expected["order"][status]})
            for build, status in (("1", "running"), ("2", "completed"))
        ]
        assert list(await rivals[0].builds(namespace)) == [running, completed]
        listed = (await rivals[0].list_runs(namespace, RunFilter(), 50, None)).runs
        assert sorted(run.workflow_id for run in listed) == sorted(names[1:])
        assert sum(run.status == "completed" for run in listed) == 14

    run(scenario)


class Former:
    """Writes lists as the release before builds were counted did."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def apply(self, run: RunChanged, *counts: int) -> None:
        """`counts`: of its shard, running and completed, after it."""
        key = (self._namespace, shard_of(run.workflow_id))
        versions = await self._connection.rows(
            "SELECT version FROM listed_runs WHERE namespace = ? AND shard = ?", *key
        )
        version = (versions[0][0] or 0) if versions else 0
        labels = [f"order{BETWEEN}{status}" for status in ("running", "completed")]
        await self._connection.write(
            "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?)",
            self._namespace, run.workflow_id, run.run_id, run.started_at,
        )  # fmt: skip
        count = "UPDATE listed_runs SET version = ?, counts = ? WHERE namespace = ? AND shard = ? IF version = ?"
        row = (
            "INSERT INTO listed_runs (namespace, shard, started_at, workflow_id, run_id, run_version, name, status, "
            "tags, attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        assert await self._connection.decide_together(
            (count, (version + 1, dict(zip(labels, counts, strict=True)), *key, version or None)),
            [(row, (*key, run.started_at, run.workflow_id, run.run_id, run.version, run.name, run.status, set(run.tags),
                    {}, encode_change(run)))],
        )  # fmt: skip


def test_runs_that_a_release_without_builds_has_listed_are_counted_by_build(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_runs, "_ROWS_AT_A_TIME", 1)
    same = [name for name in (f"w{number}" for number in range(200)) if shard_of(name) == shard_of("w0")]

    def of(build: str, completed: int = 0, running: int = 0) -> BuildCounts:
        counts = {"completed": completed, "running": running}
        return BuildCounts(name="order", build=build, counts={status: n for status, n in counts.items() if n})

    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        former, model = Former(connection, namespace), CassandraReadModel(connection)
        for number, name in enumerate(same[:3], 1):
            await former.apply(on_build("1", changed(name, 1)), number, 0)
        assert list(await model.builds(namespace)) == [of("1", running=3)]
        await former.apply(on_build("2", changed(same[3], 1)), 4, 0)  # one of it still runs
        await model.apply([(namespace, on_build("1", changed(same[0], 2, "completed")))])
        assert list(await model.builds(namespace)) == [of("1", 1, 2), of("2", running=1)]
        await former.apply(on_build("2", changed(same[3], 2, "completed")), 2, 2)
        await model.forget(namespace, same[1], f"{same[1]}-run")
        found = [of("1", 1, 1), of("2", completed=1)]
        assert list(await model.builds(namespace)) == found
        counted: list[str] = []
        monkeypatch.setattr(listed_runs, "count_rows", lambda *of: counted.append(str(of)))
        assert list(await CassandraReadModel(connection).builds(namespace)) == found
        assert not counted, "nobody has to count again"

    run(scenario)


def test_forgetting_that_died_after_its_mark_is_completed_by_the_repetition(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(connection: Connection, clock: SteppedClock, namespace: str) -> None:
        await CassandraReadModel(connection).apply([(namespace, changed("a", 1))])

        async def die(self: ListedRuns, *write: object) -> bool:
            raise StorageUnavailable("cut off")

        with monkeypatch.context() as cut_off:
            cut_off.setattr(ListedRuns, "_write", die)
            with pytest.raises(StorageUnavailable):
                await CassandraReadModel(connection).forget(namespace, "a", "a-run")
        successor = CassandraReadModel(connection)
        await successor.forget(namespace, "a", "a-run")
        assert (await successor.list_runs(namespace, RunFilter(), 10, None)).runs == []
        assert not any(sum(of_name.values()) for of_name in (await successor.counts(namespace)).values())

    run(scenario)
