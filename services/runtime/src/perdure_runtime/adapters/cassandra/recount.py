"""Counts of runs made anew from the rows that they count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.listed_runs import (
    BETWEEN,
    SHARDS,
    Counts,
    Shard,
    count_rows,
    new_counts,
    read_shard,
)
from perdure_runtime.adapters.cassandra.migrations import check
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome

_ATTEMPTS_MAX = 50
"""A shard that a projector writes to meanwhile is counted again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Runs of one name and status, as they were counted, and as there are."""

    name: str
    status: str
    counted: int
    found: int
    build: str | None = None
    """Of this build alone, empty for those that any may run; `None`: of all builds."""


async def recount(settings: CassandraSettings, namespace: str) -> list[Difference]:
    """Count the rows of every shard and put right what differs; what that was. May run beside projectors.

    Raises:
        WrongSchema: this release cannot use its tables.
        StorageUnavailable: no node can be reached, or projectors write so much that a shard never stands still.
    """
    connection = await connect(settings, settings.keyspace)
    try:
        await check(connection, settings.keyspace)
        counted: Counter[str] = Counter()
        found: Counter[str] = Counter()
        for shard in range(SHARDS):
            before, now = await _recount_shard(connection, namespace, shard)
            for counter, counts in ((counted, before), (found, now)):
                counter.update(counts.statuses)
                counter.update(counts.builds)
    finally:
        await connection.close()
    return [_difference(label, counted, found) for label in sorted(counted | found) if counted[label] != found[label]]


async def _recount_shard(connection: Connection, namespace: str, shard: int) -> tuple[Counts, Counts]:
    """What was counted, and what there is. Counts by build that were not stored count as right."""
    for _ in range(_ATTEMPTS_MAX):
        state = await read_shard(connection, namespace, shard)
        found = await count_rows(connection, namespace, shard)
        if found == state.counts and not state.recounted:
            return state.counts, found
        anew = Shard(state.version, state.counts, recounted=True)
        try:
            if await connection.decide_together(new_counts((namespace, shard), anew, found), []):
                return state.counts, found
        except UnknownOutcome:
            continue
    raise StorageUnavailable(f"shard {shard} changed {_ATTEMPTS_MAX} times while it was counted: try again later")


def _difference(label: str, counted: Counter[str], found: Counter[str]) -> Difference:
    name, status, *build = label.split(BETWEEN, 2)
    return Difference(name, status, counted[label], found[label], build[0] if build else None)
