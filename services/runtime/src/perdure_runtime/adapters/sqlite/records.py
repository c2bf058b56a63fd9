"""Task records, timers and routing as tables."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.ports import Routing
from perdure_schemas.codec import decode_timer, encode_timer
from perdure_schemas.messages import CancelTimer, ScheduleTimer


class SqliteTasks:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        found = self._row(namespace, task_id)
        await self._database.settled()
        return found

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, *, ttl_ms: int | None = None
    ) -> bool:
        version, _ = self._row(namespace, task_id)
        won = version == expected_version
        if won:
            expires_at = None if ttl_ms is None else self._database.clock.now() + ttl_ms
            self._database.write(
                "INSERT INTO tasks (namespace, task_id, version, record, expires_at) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (namespace, task_id) DO UPDATE SET "
                "version = excluded.version, record = excluded.record, expires_at = excluded.expires_at",
                (namespace, task_id, version + 1, record, expires_at),
            )
        await self._database.settled()
        return won

    def _row(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        found = self._database.read(
            "SELECT version, record FROM tasks WHERE namespace = ? AND task_id = ? "
            "AND (expires_at IS NULL OR expires_at > ?)",
            (namespace, task_id, self._database.clock.now()),
        )
        return (found[0][0], found[0][1]) if found else (0, None)


class SqliteTimers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, namespace: str, shard: int, timers: Sequence[ScheduleTimer]) -> None:
        rows = [(namespace, shard, timer.timer_id, timer.due_at, encode_timer(timer)) for timer in timers]
        self._database.write_many(
            "INSERT OR REPLACE INTO timers (namespace, shard, timer_id, due_at, data) VALUES (?, ?, ?, ?, ?)", rows
        )
        await self._database.settled()

    async def remove(self, namespace: str, shard: int, timer_ids: Sequence[str]) -> None:
        rows = [(namespace, shard, timer_id) for timer_id in timer_ids]
        self._database.write_many("DELETE FROM timers WHERE namespace = ? AND shard = ? AND timer_id = ?", rows)
        await self._database.settled()

    async def cancel(self, namespace: str, shard: int, timers: Sequence[CancelTimer]) -> None:
        await self.remove(namespace, shard, [timer.timer_id for timer in timers])

    async def due(self, namespace: str, shard: int, until: int, limit: int) -> Sequence[ScheduleTimer]:
        rows = self._database.read(
            "SELECT data FROM timers WHERE namespace = ? AND shard = ? AND due_at <= ? ORDER BY due_at LIMIT ?",
            (namespace, shard, until, limit),
        )
        await self._database.settled()
        return [decode_timer(data) for (data,) in rows]

    async def next_due(self, namespace: str, shard: int) -> int | None:
        rows = self._database.read(
            "SELECT min(due_at) FROM timers WHERE namespace = ? AND shard = ?", (namespace, shard)
        )
        await self._database.settled()
        due: int | None = rows[0][0]
        return due


class SqliteRouting:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, str], Routing] = {}
        """What was read or written: every start asks, and nobody else writes the file."""

    async def get(self, namespace: str, workflow: str) -> Routing:
        routing = self._known.get((namespace, workflow))
        if routing is None:
            rows = self._database.read(
                "SELECT current, ramping, ramping_percent, run_timeout_ms, retention_ms FROM routing "
                "WHERE namespace = ? AND workflow = ?",
                (namespace, workflow),
            )
            routing = Routing()
            for current, ramping, percent, timeout_ms, retention_ms in rows:
                defaults = RunDefaults(run_timeout_ms=timeout_ms, retention_ms=retention_ms)
                routing = Routing(current=current, ramping=ramping, ramping_percent=percent, defaults=defaults)
            await self._database.settled()
            self._known[namespace, workflow] = routing
        return routing

    async def put(self, namespace: str, workflow: str, routing: Routing) -> None:
        self._known.pop((namespace, workflow), None)
        defaults = routing.defaults
        self._database.write(
            "INSERT OR REPLACE INTO routing "
            "(namespace, workflow, current, ramping, ramping_percent, run_timeout_ms, retention_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                namespace, workflow, routing.current, routing.ramping, routing.ramping_percent,
                defaults.run_timeout_ms, defaults.retention_ms,
            ),
        )  # fmt: skip
        await self._database.settled()
        self._known[namespace, workflow] = routing
