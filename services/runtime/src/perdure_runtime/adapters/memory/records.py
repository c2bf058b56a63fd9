"""Task records, timers, blobs and routing in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from perdure_runtime.ports import Clock, Routing
from perdure_schemas.messages import ScheduleTimer

_NO_ROUTING = Routing()


class MemoryTasks:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], tuple[int, bytes, int | None]] = {}

    async def load(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        row = self._rows.get((namespace, task_id))
        if row is None:
            return 0, None
        version, record, expires_at = row
        if expires_at is not None and expires_at <= self._clock.now():
            del self._rows[namespace, task_id]
            return 0, None
        return version, record

    async def save(  # noqa: PLR0917 the port's
        self, namespace: str, task_id: str, expected_version: int, record: bytes, ttl_ms: int | None
    ) -> bool:
        version, _ = await self.load(namespace, task_id)
        if version != expected_version:
            return False
        expires_at = None if ttl_ms is None else self._clock.now() + ttl_ms
        self._rows[namespace, task_id] = (version + 1, record, expires_at)
        return True


class MemoryTimers:
    def __init__(self) -> None:
        self._shards: dict[tuple[str, int], dict[str, ScheduleTimer]] = {}

    async def put(self, namespace: str, shard: int, timers: Sequence[ScheduleTimer]) -> None:
        self._shards.setdefault((namespace, shard), {}).update({timer.timer_id: timer for timer in timers})

    async def remove(self, namespace: str, shard: int, timer_ids: Sequence[str]) -> None:
        timers = self._shards.get((namespace, shard), {})
        for timer_id in timer_ids:
            timers.pop(timer_id, None)

    async def due(self, namespace: str, shard: int, until: int, limit: int) -> Sequence[ScheduleTimer]:
        timers = self._shards.get((namespace, shard), {}).values()
        due = [timer for timer in timers if timer.due_at <= until]
        return sorted(due, key=lambda timer: timer.due_at)[:limit]

    async def next_due(self, namespace: str, shard: int) -> int | None:
        timers = self._shards.get((namespace, shard), {}).values()
        return min((timer.due_at for timer in timers), default=None)


class MemoryBlobs:
    def __init__(self) -> None:
        self._blobs: dict[tuple[str, str], bytes] = {}

    async def put(self, namespace: str, data: bytes) -> str:
        blob_id = sha256(data).hexdigest()
        self._blobs[namespace, blob_id] = data
        return blob_id

    async def get(self, namespace: str, blob_id: str) -> bytes | None:
        return self._blobs.get((namespace, blob_id))


class MemoryRouting:
    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Routing] = {}

    async def get(self, namespace: str, workflow: str) -> Routing:
        return self._records.get((namespace, workflow), _NO_ROUTING)

    async def put(self, namespace: str, workflow: str, routing: Routing) -> None:
        self._records[namespace, workflow] = routing
