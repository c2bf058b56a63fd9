"""Timers where the outcome of a conditional write is unknown: tables in memory, that answer as a cluster may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from perdure_runtime.adapters.cassandra import timers as module
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.adapters.cassandra.timers import CassandraTimers
from perdure_runtime.errors import UnknownOutcome
from perdure_schemas.common import Address
from perdure_schemas.messages import ScheduleTimer, TimerFired
from tests.contracts.worlds import SteppedClock


class Tables:
    """Of one shard. What is in doubt is stored at once."""

    def __init__(self) -> None:
        self.owner: tuple[str | None, int | None] = (None, None)
        self.minutes: dict[int, tuple[int | None, str | None]] = {}
        self.rows: dict[tuple[int, int, str], bytes] = {}


class Node:
    """What one replica sees of the tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.in_doubt = ""
        """The next conditional write that is this one is stored, and its answer is lost."""

    async def rows(self, cql: str, *values: Any, serial: bool = False) -> Sequence[Any]:
        if cql == module._OWNER:
            return [self.tables.owner]
        if cql == module._MINUTES:
            return [(minute, *mark) for minute, mark in self.tables.minutes.items()]
        _, _, minute, fire_at, timer_id, limit = values
        rows = sorted((place[1], place[2], data) for place, data in self.tables.rows.items() if place[0] == minute)
        return [row for row in rows if row[:2] > (fire_at, timer_id)][:limit]

    async def decide(self, cql: str, *values: Any) -> bool:
        tables = self.tables
        if cql == module._CLAIM:
            won = tables.owner == values[4:]
            tables.owner = values[:2] if won else tables.owner
        else:
            won = tables.owner[0] == values[-1]
            match cql:
                case module._NOTE if won:
                    tables.minutes.setdefault(values[2], (None, None))
                case module._MARK if won:
                    tables.minutes[values[4]] = values[:2]
        if cql == self.in_doubt:
            self.in_doubt = ""
            raise UnknownOutcome("conditional write")
        return won

    async def write_together(self, writes: Sequence[tuple[str, Sequence[Any]]]) -> None:
        for cql, values in writes:
            place = cast(tuple[int, int, str], tuple(values[2:5]))
            if cql == module._PUT:
                self.tables.rows[place] = values[5]
            else:
                self.tables.rows.pop(place, None)

    async def write(self, cql: str, *values: Any) -> None:
        assert cql == module._DROP
        for place in [place for place in self.tables.rows if place[0] == values[2]]:
            del self.tables.rows[place]


def replica(node: Node, clock: SteppedClock, name: str) -> CassandraTimers:
    return CassandraTimers(cast(Connection, node), clock, name)


def timer(timer_id: str, due_at: int) -> ScheduleTimer:
    fires = TimerFired(workflow_id=timer_id, run_id="r", kind="command", due_at=due_at)
    return ScheduleTimer(
        timer_id=timer_id, due_at=due_at, target=Address("workflow-engine", timer_id), fires=fires, message_id=timer_id
    )


async def all_due(timers: CassandraTimers, clock: SteppedClock) -> list[str]:
    fired: list[str] = []
    while due := await timers.due("ns", 0, clock.time, 10):
        fired += [each.timer_id for each in due]
        await timers.remove("ns", 0, [each.timer_id for each in due])
    return fired


def test_who_takes_a_shard_back_by_a_claim_in_doubt_knows_what_was_stored_meanwhile() -> None:
    async def scenario() -> None:
        clock, tables = SteppedClock(), Tables()
        node, now = Node(tables), clock.time
        frozen, other = replica(node, clock, "frozen"), replica(Node(tables), clock, "other")
        await frozen.put("ns", 0, [timer("before", now + 600_000)])
        clock.time += module.LEASE_MS + 1
        await other.put("ns", 0, [timer("meanwhile", now + 300_000)])
        node.in_doubt = module._CLAIM
        with pytest.raises(UnknownOutcome):
            await frozen.put("ns", 0, [timer("after", now + 600_001)])
        await frozen.put("ns", 0, [timer("after", now + 600_001)])
        clock.time = now + 700_000
        assert await all_due(frozen, clock) == ["meanwhile", "before", "after"]

    asyncio.run(scenario())
