"""Counts of runs made anew from the rows that they count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.listed_runs import BETWEEN, COUNT, READ_SHARD, SHARDS
from perdure_runtime.adapters.cassandra.migrations import check
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome

_ROWS = "SELECT name, status, run_version FROM listed_runs WHERE namespace = ? AND shard = ?"
_ATTEMPTS_MAX = 50
"""A shard that a projector writes to meanwhile is counted again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Runs of one name and status, as they were counted, and as there are."""

    name: str
    status: str
    counted: int
    found: int


async def recount(settings: CassandraSettings, namespace: str) -> list[Difference]:
    """Count the rows of every shard and put right what differs; what that was. May run beside projectors.

    Raises:
        WrongSchema: its tables are not of this release.
        StorageUnavailable: no node can be reached, or projectors write so much that a shard never stands still.
    """
    connection = await connect(settings, settings.keyspace)
    try:
        await check(connection, settings.keyspace)
        counted: Counter[str] = Counter()
        found: Counter[str] = Counter()
        for shard in range(SHARDS):
            before, now = await _recount_shard(connection, namespace, shard)
            counted.update(before)
            found.update(now)
    finally:
        await connection.close()
    return [_difference(label, counted, found) for label in sorted(counted | found) if counted[label] != found[label]]


async def _recount_shard(connection: Connection, namespace: str, shard: int) -> tuple[dict[str, int], dict[str, int]]:
    """What was counted, and what there is. The version is read before the rows: counts of older rows are refused."""
    for _ in range(_ATTEMPTS_MAX):
        head = await connection.rows(READ_SHARD, namespace, shard, serial=True)
        version, counted = (head[0][0] or 0, dict(head[0][1] or {})) if head else (0, {})
        rows = await connection.rows(_ROWS, namespace, shard)
        found = dict(Counter(f"{name}{BETWEEN}{status}" for name, status, held in rows if held is not None))
        if found == counted:
            return counted, found
        try:
            if await connection.decide(COUNT, version + 1, found, namespace, shard, version or None):
                return counted, found
        except UnknownOutcome:
            continue
    raise StorageUnavailable(f"shard {shard} changed {_ATTEMPTS_MAX} times while it was counted: try again later")


def _difference(label: str, counted: Counter[str], found: Counter[str]) -> Difference:
    name, _, status = label.partition(BETWEEN)
    return Difference(name, status, counted[label], found[label])
