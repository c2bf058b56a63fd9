"""Runs and tasks as lists show them; counts change in the transaction of the run they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from perdure_runtime.adapters import cursors
from perdure_runtime.adapters.labels import attributes, by_build
from perdure_runtime.adapters.retention import FORGOTTEN_KEPT_MS
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.ports import BuildCounts, RunFilter, RunPage
from perdure_schemas.codec import decode_change, encode_change
from perdure_schemas.messages import RunChanged, TaskChanged

_MARK = "\x1f"
"""Before and after each tag and attribute, so that one is found whole in the text of all."""
_EQUALS = "\x1e"

_KNOWN_RUN = """
    SELECT number, version, name, build, status FROM listed_runs WHERE namespace = ? AND workflow_id = ? AND run_id = ?
"""
_UPSERT_RUN = """
    INSERT INTO listed_runs (namespace, workflow_id, run_id, version, name, build, status, started_at, waits_for, tags,
        attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (namespace, workflow_id, run_id) DO UPDATE SET version = excluded.version, name = excluded.name,
        build = excluded.build, status = excluded.status, started_at = excluded.started_at,
        waits_for = excluded.waits_for, tags = excluded.tags, attributes = excluded.attributes, data = excluded.data
"""
_COUNT = """
    INSERT INTO run_counts (namespace, name, build, status, runs) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (namespace, name, build, status) DO UPDATE SET runs = runs + excluded.runs
"""
_COUNTS = "SELECT name, build, status, runs FROM run_counts WHERE namespace = ? AND runs > 0"
_UPSERT_TASK = """
    INSERT INTO listed_tasks (namespace, task_id, version, workflow_id, run_id, data)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6
    WHERE NOT EXISTS (
        SELECT 1 FROM forgotten_runs WHERE namespace = ?1 AND workflow_id = ?4 AND run_id = ?5 AND expires_at > ?7
    )
    ON CONFLICT (namespace, task_id) DO UPDATE SET version = excluded.version, workflow_id = excluded.workflow_id,
        run_id = excluded.run_id, data = excluded.data WHERE excluded.version > version
"""

_FORGOTTEN = "SELECT 1 FROM forgotten_runs WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND expires_at > ?"
_FORGET = "INSERT OR REPLACE INTO forgotten_runs (namespace, workflow_id, run_id, expires_at) VALUES (?, ?, ?, ?)"

_Counted: TypeAlias = tuple[str, str, str, str]
"""(namespace, name, build, status)."""


class SqliteReadModel:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, changes: Sequence[tuple[str, RunChanged | TaskChanged]]) -> None:
        runs: dict[tuple[str, str, str], RunChanged] = {}
        counts: Counter[_Counted] = Counter()
        for namespace, change in changes:
            if isinstance(change, RunChanged):
                key = (namespace, change.workflow_id, change.run_id)
                if key not in runs or runs[key].version < change.version:
                    runs[key] = change
            else:
                self._apply_task(namespace, change)
        for key, run in runs.items():
            self._apply_run(key, run, counts)
        self._count(counts)
        await self._database.settled()

    def _apply_task(self, namespace: str, task: TaskChanged) -> None:
        workflow_id, run_id = ("", "")
        if task.workflow is not None:
            workflow_id, run_id = task.workflow.workflow_id, task.workflow.run_id
        row = (namespace, task.task_id, task.version, workflow_id, run_id, encode_change(task))
        self._database.write(_UPSERT_TASK, (*row, self._database.clock.now()))

    def _apply_run(self, key: tuple[str, str, str], run: RunChanged, counts: Counter[_Counted]) -> None:
        known = self._database.read(_KNOWN_RUN, key)
        if known and known[0][1] >= run.version:
            return
        if not known and self._database.read(_FORGOTTEN, (*key, self._database.clock.now())):
            return
        data = encode_change(msgspec.structs.replace(run, events=[]) if run.events else run)
        labels = [f"{name}{_EQUALS}{value}" for name, value in attributes(run).items()]
        texts = (run.waits_for, _marked(run.tags), _marked(labels))
        counted = (run.name, run.build or "", run.status)
        self._database.write(_UPSERT_RUN, (*key, run.version, *counted, run.started_at, *texts, data))
        counts[key[0], *counted] += 1
        for _, _, name, build, status in known:
            counts[key[0], name, build, status] -= 1

    def _count(self, changes: Counter[_Counted]) -> None:
        rows = [(*counted, change) for counted, change in changes.items() if change]
        if rows:
            self._database.write_many(_COUNT, rows)

    async def forget(self, namespace: str, workflow_id: str, run_id: str) -> None:
        key = (namespace, workflow_id, run_id)
        known = self._database.read(_KNOWN_RUN, key)
        if known:
            self._database.write("DELETE FROM listed_runs WHERE number = ?", (known[0][0],))
            self._count(Counter({(namespace, *known[0][2:]): -1}))
        self._database.write("DELETE FROM listed_tasks WHERE namespace = ? AND workflow_id = ? AND run_id = ?", key)
        self._database.write(_FORGET, (*key, self._database.clock.now() + FORGOTTEN_KEPT_MS))
        await self._database.settled()

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        conditions, values = _conditions(where)
        if cursor is not None:
            conditions.append("(started_at, number) < (?, ?)")
            values += cursors.read(cursor)
        rows = self._database.read(
            f"SELECT started_at, number, data FROM listed_runs WHERE {' AND '.join(['namespace = ?', *conditions])} "
            "ORDER BY started_at DESC, number DESC LIMIT ?",
            (namespace, *values, limit + 1),
        )
        await self._database.settled()
        page = rows[:limit]
        more = len(rows) > limit
        return RunPage(runs=[_run(data) for _, _, data in page], cursor=cursors.write(*page[-1][:2]) if more else None)

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None:
        rows = self._database.read(
            "SELECT data FROM listed_runs WHERE namespace = ? AND workflow_id = ? AND run_id = coalesce(?, run_id) "
            "ORDER BY started_at DESC, number DESC LIMIT 1",
            (namespace, workflow_id, run_id),
        )
        await self._database.settled()
        return _run(rows[0][0]) if rows else None

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        rows = self._database.read(
            "SELECT data FROM listed_tasks WHERE namespace = ? AND workflow_id = ? AND run_id = ? ORDER BY number",
            (namespace, workflow_id, run_id),
        )
        await self._database.settled()
        tasks = [decode_change(data) for (data,) in rows]
        return [task for task in tasks if isinstance(task, TaskChanged)]

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]:
        rows = self._database.read(_COUNTS, (namespace,))
        await self._database.settled()
        totals: dict[str, dict[str, int]] = {}
        for name, _, status, runs in rows:
            of_name = totals.setdefault(name, {})
            of_name[status] = of_name.get(status, 0) + runs
        return totals

    async def builds(self, namespace: str) -> Sequence[BuildCounts]:
        rows = self._database.read(_COUNTS, (namespace,))
        await self._database.settled()
        return by_build({(name, build, status): runs for name, build, status, runs in rows})


def _conditions(where: RunFilter) -> tuple[list[str], list[Any]]:
    label = "" if where.attribute is None else _marked([f"{where.attribute[0]}{_EQUALS}{where.attribute[1]}"])
    tag = _marked([where.tag]) if where.tag else ""
    wanted: list[tuple[str, Any]] = [
        ("name = ?", where.name),
        ("status = ?", where.status),
        ("workflow_id = ?", where.workflow_id),
        ("instr(tags, ?) > 0", tag),
        ("instr(attributes, ?) > 0", label),
        ("instr(waits_for, ?) = 1", where.waits_for),
        ("started_at >= ?", where.started_from),
        ("started_at < ?", where.started_before),
    ]
    held = [(condition, value) for condition, value in wanted if value not in (None, "")]
    return [condition for condition, _ in held], [value for _, value in held]


def _marked(texts: Sequence[str]) -> str:
    return f"{_MARK}{_MARK.join(texts)}{_MARK}" if texts else ""


def _run(data: bytes) -> RunChanged:
    change = decode_change(data)
    assert isinstance(change, RunChanged)
    return change
