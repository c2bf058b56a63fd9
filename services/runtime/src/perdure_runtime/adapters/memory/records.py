"""Task records, timers, blobs and routing in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from perdure_runtime.blobs import aside
from perdure_runtime.ports import TRANSIT_TTL_MS, Clock, Routing
from perdure_schemas.blobs import Blob
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
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._transit: dict[tuple[str, str], tuple[int, bytes]] = {}
        """With the time when it vanishes; the oldest first."""
        self._of_runs: dict[tuple[str, str, str], dict[str, bytes]] = {}

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        if blob.run_id:
            self._of_runs.setdefault((namespace, blob.workflow_id, blob.run_id), {})[blob.id] = data
            return
        self._forget_expired()
        self._transit.pop((namespace, blob.id), None)
        self._transit[namespace, blob.id] = self._clock.now() + TRANSIT_TTL_MS, data

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        if blob.run_id:
            data = self._of_runs.get((namespace, blob.workflow_id, blob.run_id), {}).get(blob.id)
        else:
            self._forget_expired()
            data = self._transit.get((namespace, blob.id), (0, None))[1]
        return data if data is not None and await aside(len(data), lambda: blob.is_of(data)) else None

    async def remove(self, namespace: str, blob: Blob) -> None:
        if not blob.run_id:
            self._transit.pop((namespace, blob.id), None)
            return
        key = (namespace, blob.workflow_id, blob.run_id)
        self._of_runs.get(key, {}).pop(blob.id, None)
        if not self._of_runs.get(key, True):
            del self._of_runs[key]

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        self._of_runs.pop((namespace, workflow_id, run_id), None)

    def _forget_expired(self) -> None:
        now = self._clock.now()
        while self._transit and (oldest := next(iter(self._transit.items())))[1][0] <= now:
            del self._transit[oldest[0]]


class MemoryRouting:
    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Routing] = {}

    async def get(self, namespace: str, workflow: str) -> Routing:
        return self._records.get((namespace, workflow), _NO_ROUTING)

    async def put(self, namespace: str, workflow: str, routing: Routing) -> None:
        self._records[namespace, workflow] = routing
