"""Task records and routing as tables of one row per partition, or nearly."""

from __future__ import annotations

from time import monotonic

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.ports import Clock, Routing

_EXPIRY_SLACK_S = 86_400
"""A record is dead when its `expires_at` says so; Cassandra drops it a day later, whatever its clocks say."""

_ROUTING_KEPT_S = 1.0
"""A replica may start runs on the build before for so long."""
_ROUTINGS_MAX = 10_000
"""About a megabyte. Names are the callers': any of them may be asked for."""

_LOAD = "SELECT version, record, expires_at FROM tasks WHERE namespace = ? AND task_id = ?"
_SAVE = "UPDATE tasks SET version = ?, record = ?, expires_at = ? WHERE namespace = ? AND task_id = ? IF version = ?"
_SAVE_FOR_A_WHILE = _SAVE.replace("UPDATE tasks", "UPDATE tasks USING TTL ?")
_GET_ROUTING = (
    "SELECT current, ramping, ramping_percent, run_timeout_ms, retention_ms FROM routing "
    "WHERE namespace = ? AND workflow = ?"
)
_PUT_ROUTING = (
    "INSERT INTO routing (namespace, workflow, current, ramping, ramping_percent, run_timeout_ms, retention_ms) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class CassandraTasks:
    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def load(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        version, record, expired = await self._row(namespace, task_id)
        return (0, None) if expired else (version, record)

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, *, ttl_ms: int | None = None
    ) -> bool:
        values = (expected_version + 1, record, ttl_ms)
        if await self._set(namespace, task_id, expected_version, values):
            return True
        if expected_version:
            return False
        version, _, expired = await self._row(namespace, task_id)
        return expired and await self._set(namespace, task_id, version, values)

    async def _set(self, namespace: str, task_id: str, found: int, values: tuple[int, bytes, int | None]) -> bool:
        version, record, ttl_ms = values
        ttl = () if ttl_ms is None else (ttl_ms // 1000 + _EXPIRY_SLACK_S,)
        expires_at = None if ttl_ms is None else self._clock.now() + ttl_ms
        return await self._connection.decide(
            _SAVE_FOR_A_WHILE if ttl else _SAVE, *ttl, version, record, expires_at, namespace, task_id, found or None
        )

    async def _row(self, namespace: str, task_id: str) -> tuple[int, bytes | None, bool]:
        rows = await self._connection.rows(_LOAD, namespace, task_id, serial=True)
        if not rows or rows[0][0] is None:
            return 0, None, False
        version, record, expires_at = rows[0]
        return version, record, expires_at is not None and expires_at <= self._clock.now()


class CassandraRouting:
    """Each start asks, and the answer changes a few times a day: it is kept for a moment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: dict[tuple[str, str], tuple[float, Routing]] = {}
        """With the time from which it is asked again, by the clock of `time.monotonic`."""

    async def get(self, namespace: str, workflow: str) -> Routing:
        until, routing = self._kept.get((namespace, workflow), (0.0, Routing()))
        asked = monotonic()  # what comes late may have changed meanwhile
        if asked < until:
            return routing
        rows = await self._connection.rows(_GET_ROUTING, namespace, workflow)
        if rows:
            current, ramping, percent, timeout_ms, retention_ms = rows[0]
            defaults = RunDefaults(run_timeout_ms=timeout_ms, retention_ms=retention_ms)
            routing = Routing(current=current, ramping=ramping, ramping_percent=percent or 0, defaults=defaults)
        else:
            routing = Routing()
        if len(self._kept) >= _ROUTINGS_MAX:
            self._kept.clear()
        self._kept[namespace, workflow] = asked + _ROUTING_KEPT_S, routing
        return routing

    async def put(self, namespace: str, workflow: str, routing: Routing) -> None:
        defaults = routing.defaults
        await self._connection.write(
            _PUT_ROUTING, namespace, workflow, routing.current, routing.ramping, routing.ramping_percent,
            defaults.run_timeout_ms, defaults.retention_ms,
        )  # fmt: skip
        self._kept.pop((namespace, workflow), None)
