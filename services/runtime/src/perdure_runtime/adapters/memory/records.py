"""Task records, timers, blobs and routing in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from heapq import heapify, heappop, heappush

from perdure_runtime.ports import Clock, Routing
from perdure_schemas.messages import CancelTimer, ScheduleTimer

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

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, *, ttl_ms: int | None = None
    ) -> bool:
        version, _ = await self.load(namespace, task_id)
        if version != expected_version:
            return False
        expires_at = None if ttl_ms is None else self._clock.now() + ttl_ms
        self._rows[namespace, task_id] = (version + 1, record, expires_at)
        return True


class _Shard:
    """Timers by id, and a heap of (due time, timer id) in which those that are gone or moved are passed over."""

    def __init__(self) -> None:
        self.timers: dict[str, ScheduleTimer] = {}
        self._heap: list[tuple[int, str]] = []

    def put(self, timer: ScheduleTimer) -> None:
        self.timers[timer.timer_id] = timer
        heappush(self._heap, (timer.due_at, timer.timer_id))
        if len(self._heap) > 2 * len(self.timers) + _STALE_MAX:
            self._heap = [(timer.due_at, timer_id) for timer_id, timer in self.timers.items()]
            heapify(self._heap)

    def first(self) -> ScheduleTimer | None:
        while self._heap:
            due_at, timer_id = self._heap[0]
            timer = self.timers.get(timer_id)
            if timer is not None and timer.due_at == due_at:
                return timer
            heappop(self._heap)
        return None

    def due(self, until: int, limit: int) -> list[ScheduleTimer]:
        found: dict[str, ScheduleTimer] = {}
        while len(found) < limit and (timer := self.first()) is not None and timer.due_at <= until:
            found[timer.timer_id] = timer
            heappop(self._heap)
        for timer in found.values():  # they stay until they are removed
            heappush(self._heap, (timer.due_at, timer.timer_id))
        return list(found.values())


_STALE_MAX = 1_000
"""So many entries of timers that are gone may stay in a heap, beyond as many as there are timers."""


class MemoryTimers:
    def __init__(self) -> None:
        self._shards: dict[tuple[str, int], _Shard] = {}

    async def put(self, namespace: str, shard: int, timers: Sequence[ScheduleTimer]) -> None:
        found = self._shards.setdefault((namespace, shard), _Shard())
        for timer in timers:
            found.put(timer)

    async def remove(self, namespace: str, shard: int, timer_ids: Sequence[str]) -> None:
        found = self._shards.get((namespace, shard))
        if found is not None:
            for timer_id in timer_ids:
                found.timers.pop(timer_id, None)

    async def cancel(self, namespace: str, shard: int, timers: Sequence[CancelTimer]) -> None:
        await self.remove(namespace, shard, [timer.timer_id for timer in timers])

    async def due(self, namespace: str, shard: int, until: int, limit: int) -> Sequence[ScheduleTimer]:
        found = self._shards.get((namespace, shard))
        return [] if found is None else found.due(until, limit)

    async def next_due(self, namespace: str, shard: int) -> int | None:
        found = self._shards.get((namespace, shard))
        timer = None if found is None else found.first()
        return None if timer is None else timer.due_at


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
