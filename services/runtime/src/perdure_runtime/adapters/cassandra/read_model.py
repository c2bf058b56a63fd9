"""Runs and tasks as lists show them.

A list asks every shard, unless it asks for one workflow id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import Any

import msgspec

from perdure_runtime.adapters import cursors
from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.adapters.cassandra.listed_runs import BETWEEN, READ_DATA, SHARDS, ListedRuns, shard_of
from perdure_runtime.adapters.labels import by_build
from perdure_runtime.ports import BuildCounts, RunFilter, RunPage
from perdure_schemas.codec import decode_change, encode_change
from perdure_schemas.messages import RunChanged, TaskChanged

_FORGOTTEN_AT = 2**60
"""The write time of a deletion that nothing comes after."""

_LIST = "SELECT started_at, workflow_id, run_id, data FROM listed_runs WHERE namespace = ? AND shard = ?"
_PUT_TASK = (
    "INSERT INTO listed_tasks (namespace, workflow_id, run_id, task_id, data) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_TASKS = "SELECT data FROM listed_tasks WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_FORGET_TASKS = "DELETE FROM listed_tasks USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ?"


class CassandraReadModel:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._runs = ListedRuns(connection)

    async def apply(self, changes: Sequence[tuple[str, RunChanged | TaskChanged]]) -> None:
        runs: dict[tuple[str, int], dict[tuple[str, str], RunChanged]] = {}
        tasks: list[tuple[str, TaskChanged]] = []
        for namespace, change in changes:
            if isinstance(change, TaskChanged):
                tasks.append((namespace, change))
                continue
            of_shard = runs.setdefault((namespace, shard_of(change.workflow_id)), {})
            key = (change.workflow_id, change.run_id)
            if key not in of_shard or of_shard[key].version < change.version:
                of_shard[key] = change
        await asyncio.gather(
            *(self._runs.apply(*key, list(newest.values())) for key, newest in runs.items()),
            *(self._apply_task(namespace, task) for namespace, task in tasks),
        )

    async def forget(self, namespace: str, workflow_id: str, run_id: str) -> None:
        await self._runs.forget(namespace, workflow_id, run_id)
        await self._connection.write(_FORGET_TASKS, _FORGOTTEN_AT, namespace, workflow_id, run_id)

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        shards: Iterable[int] = range(SHARDS) if not where.workflow_id else [shard_of(where.workflow_id)]
        found = await asyncio.gather(*(self._list(namespace, shard, where, limit, cursor) for shard in shards))
        rows = list(islice(merge(*found, key=lambda row: row[:3], reverse=True), limit + 1))
        page = rows[:limit]
        more = len(rows) > limit
        return RunPage(
            runs=[_run(row[3]) for row in page],
            cursor=msgspec.json.encode(page[-1][:3]).decode() if more else None,
        )

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None:
        indexed = [
            (started_at, found)
            for found, started_at, forgotten in await self._runs.indexed(namespace, workflow_id)
            if not forgotten and run_id in (None, found)
        ]
        for started_at, found in sorted(indexed, reverse=True):
            rows = await self._connection.rows(
                READ_DATA, namespace, shard_of(workflow_id), started_at, workflow_id, found
            )
            if rows and rows[0][0] is not None:
                return _run(rows[0][0])
        return None

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        rows = await self._connection.rows(_TASKS, namespace, workflow_id, run_id)
        tasks = [decode_change(data) for (data,) in rows]
        return [task for task in tasks if isinstance(task, TaskChanged)]

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]:
        shards = await asyncio.gather(*(self._runs.counts(namespace, shard) for shard in range(SHARDS)))
        totals: dict[str, dict[str, int]] = {}
        for shard in shards:
            for label, runs in shard.items():
                name, _, status = label.partition(BETWEEN)
                of_name = totals.setdefault(name, {})
                of_name[status] = of_name.get(status, 0) + runs
        return totals

    async def builds(self, namespace: str) -> Sequence[BuildCounts]:
        shards = await asyncio.gather(*(self._runs.builds(namespace, shard) for shard in range(SHARDS)))
        totals: Counter[tuple[str, str, str]] = Counter()
        for shard in shards:
            for label, runs in shard.items():
                name, status, build = label.split(BETWEEN, 2)
                totals[name, build, status] += runs
        return by_build(totals)

    async def _list(  # noqa: PLR0917 the port's, and a shard
        self, namespace: str, shard: int, where: RunFilter, limit: int, cursor: str | None
    ) -> list[Row]:
        """One more than a page of one shard."""
        conditions, values = _conditions(where)
        after = _first_bound(where, cursor)
        found: list[Row] = []
        while True:
            here, more = ([], []) if after is None else (["(started_at, workflow_id, run_id) < (?, ?, ?)"], list(after))
            cql = " AND ".join([_LIST, *here, *conditions]) + f" LIMIT {limit + 1} ALLOW FILTERING"
            rows = await self._connection.rows(cql, namespace, shard, *more, *values)
            rows = [row for row in rows if row[3] is not None]
            found += [row for row in rows if _run(row[3]).waits_for.startswith(where.waits_for or "")]
            if len(found) > limit or len(rows) <= limit:
                return found[: limit + 1]
            after = rows[-1][:3]

    async def _apply_task(self, namespace: str, task: TaskChanged) -> None:
        """The version is the write time: an older change changes nothing."""
        if task.workflow is None:
            return
        of = (task.workflow.workflow_id, task.workflow.run_id, task.task_id)
        await self._connection.write(_PUT_TASK, namespace, *of, encode_change(task), task.version)


def _first_bound(where: RunFilter, cursor: str | None) -> Row | None:
    """What comes before it is listed: Cassandra takes one upper bound only."""
    bounds: list[Row] = [] if cursor is None else [_bound(cursor)]
    if where.started_before is not None:
        bounds.append((where.started_before, "", ""))
    return min(bounds, default=None)


_STARTED_AT_MAX = 2**63 - 1
"""What the column holds."""


def _bound(cursor: str) -> tuple[int, str, str]:
    """Raises InvalidCursor: it is none of ours."""
    try:
        bound = msgspec.json.decode(cursor, type=tuple[int, str, str])
    except msgspec.MsgspecError:
        raise cursors.invalid(cursor) from None
    if abs(bound[0]) > _STARTED_AT_MAX:
        raise cursors.invalid(cursor)
    return bound


def _conditions(where: RunFilter) -> tuple[list[str], list[Any]]:
    attribute = where.attribute
    wanted: list[tuple[str, Any]] = [
        ("name = ?", where.name),
        ("status = ?", where.status),
        ("workflow_id = ?", where.workflow_id),
        ("tags CONTAINS ?", where.tag),
        ("(started_at) >= (?)", where.started_from),  # as a tuple: the other bound is one
    ]
    held = [(condition, [value]) for condition, value in wanted if value not in (None, "")]
    if attribute is not None:
        held.append(("attributes[?] = ?", list(attribute)))
    return [condition for condition, _ in held], [value for _, values in held for value in values]


def _run(data: bytes) -> RunChanged:
    change = decode_change(data)
    assert isinstance(change, RunChanged)
    return change
