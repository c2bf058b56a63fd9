"""Blobs in one file: they go a few at a time, and not while a program sleeps that may still need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.ports import TRANSIT_TTL_MS, Ports
from perdure_schemas.blobs import made_of
from tests.contracts.worlds import SteppedClock

MEGABYTE = bytes(1024 * 1024)
BLOBS = 20


class Counts:
    """How many blobs there are at the end of each transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.seen: list[int] = []
        database.riders.append(self)

    def before_commit(self) -> None:
        self.seen.append(self._database.read("SELECT count(*) FROM blobs")[0][0])

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...


@asynccontextmanager
async def opened(path: Path, clock: SteppedClock) -> AsyncIterator[tuple[Ports, Counts]]:
    ports = await open_sqlite(path / "db.sqlite", clock)
    try:
        yield ports.ports, Counts(ports._database)
    finally:
        await ports.close()


def steps(counts: Counts) -> list[int]:
    return [before - after for before, after in zip(counts.seen, counts.seen[1:], strict=False) if before > after]


def test_a_purge_takes_a_few_at_a_time(tmp_path: Path) -> None:
    """Each holds the loop."""

    async def scenario() -> None:
        async with opened(tmp_path, SteppedClock()) as (ports, counts):
            for number in range(BLOBS):
                blob = replace(made_of(f"b-{number}", MEGABYTE), workflow_id="w", run_id="r")
                await ports.blobs.put("ns", blob, MEGABYTE)
            await ports.blobs.purge("ns", "w", "r")
            assert sum(steps(counts)) == BLOBS
            assert max(steps(counts)) <= 4

    asyncio.run(scenario())


def test_what_has_expired_goes_a_few_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = SteppedClock()
        async with opened(tmp_path, clock) as (ports, counts):
            for number in range(BLOBS):
                await ports.blobs.put("ns", made_of(f"b-{number}", MEGABYTE), MEGABYTE)
            clock.time += TRANSIT_TTL_MS
            for number in range(BLOBS):  # anything is written, second by second
                await ports.tasks.save("ns", f"t-{number}", 0, b"")
                clock.time += 1_000
            assert sum(steps(counts)) == BLOBS
            assert max(steps(counts)) <= 4

    asyncio.run(scenario())


DAY_MS = 24 * 3_600_000


def test_what_is_in_transit_is_there_for_a_program_that_slept_and_for_a_day(tmp_path: Path) -> None:
    """Its messages are there, too."""

    async def scenario() -> None:
        clock, blob = SteppedClock(), made_of("b", MEGABYTE)
        async with opened(tmp_path, clock) as (ports, _):
            await ports.blobs.put("ns", blob, MEGABYTE)
        clock.time += TRANSIT_TTL_MS + DAY_MS
        for _ in range(2):  # it may die before it comes to it
            async with opened(tmp_path, clock) as (ports, counts):
                clock.time += DAY_MS // 4
                await ports.tasks.save("ns", f"t-{clock.time}", 0, b"")
                assert await ports.blobs.get("ns", blob) == MEGABYTE
        async with opened(tmp_path, clock) as (ports, counts):
            clock.time += DAY_MS // 2
            assert await ports.blobs.get("ns", blob) is None
            await ports.tasks.save("ns", "t", 0, b"")
            assert counts.seen == [0]

    asyncio.run(scenario())


def test_for_a_program_that_is_run_now_and_then_it_expires(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, blob = SteppedClock(), made_of("b", MEGABYTE)
        async with opened(tmp_path, clock) as (ports, _):
            await ports.blobs.put("ns", blob, MEGABYTE)
        for _ in range(2):
            clock.time += TRANSIT_TTL_MS // 3
            async with opened(tmp_path, clock) as (ports, _):
                assert await ports.blobs.get("ns", blob) == MEGABYTE
        clock.time += TRANSIT_TTL_MS // 3
        async with opened(tmp_path, clock) as (ports, _):
            assert await ports.blobs.get("ns", blob) is None

    asyncio.run(scenario())
