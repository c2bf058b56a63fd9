"""Blobs in rows of a quarter of a megabyte: a node holds a cell in memory, several times while it writes it.

What a writer that died left of a blob is no blob, by its size and hash. Of a run's own it is found when the run is
purged, since each is noted before it is written; in transit it goes by itself.
"""

from __future__ import annotations

import asyncio
import time

from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.blobs import aside
from perdure_runtime.ports import TRANSIT_TTL_MS, Clock
from perdure_schemas.blobs import Blob

CHUNK_BYTES = 256 * 1024
_AT_ONCE = 8
"""Chunks of a blob on their way to or from the nodes: two megabytes."""
_EXPIRY_SLACK_S = 86_400
"""A blob in transit is gone when its `expires_at` says so; Cassandra drops it a day later, whatever its clocks say."""
_DELETE_AHEAD_US = 60_000_000
"""Nothing is written for a run that was purged, but what was on its way: a deletion from the future covers that."""

_NOTE = "INSERT INTO run_blobs (namespace, workflow_id, run_id, blob_id) VALUES (?, ?, ?, ?)"
_NOTED = "SELECT blob_id FROM run_blobs WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_FORGET = (
    "DELETE FROM run_blobs USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND blob_id = ?"
)
_FORGET_ALL = "DELETE FROM run_blobs USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_PUT = (
    "INSERT INTO blob_chunks (namespace, workflow_id, run_id, blob_id, number, data, expires_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_PUT_FOR_A_WHILE = f"{_PUT} USING TTL ?"
_OF = "namespace = ? AND workflow_id = ? AND run_id = ? AND blob_id = ?"
_GET = f"SELECT data, expires_at FROM blob_chunks WHERE {_OF}"
_DELETE = f"DELETE FROM blob_chunks WHERE {_OF}"
_DELETE_AHEAD = f"DELETE FROM blob_chunks USING TIMESTAMP ? WHERE {_OF}"


class CassandraBlobs:
    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        of = _key(namespace, blob)
        if blob.run_id:
            await self._connection.write(_NOTE, *of)
        expires_at = None if blob.run_id else self._clock.now() + TRANSIT_TTL_MS
        ttl = () if blob.run_id else (TRANSIT_TTL_MS // 1000 + _EXPIRY_SLACK_S,)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def put(number: int) -> None:
            async with limit:
                chunk = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
                cql = _PUT_FOR_A_WHILE if ttl else _PUT
                await self._connection.write(cql, *of, number, chunk, expires_at, *ttl)

        await asyncio.gather(*(put(number) for number in range(max(1, -(-len(data) // CHUNK_BYTES)))))

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        rows = await self._connection.rows(_GET, *_key(namespace, blob), page=_AT_ONCE)
        if not rows or any(expires_at is not None and expires_at <= self._clock.now() for _, expires_at in rows):
            return None
        data = b"".join(chunk for chunk, _ in rows)
        return data if await aside(len(data), lambda: blob.is_of(data)) else None

    async def remove(self, namespace: str, blob: Blob) -> None:
        of = _key(namespace, blob)
        if not blob.run_id:
            await self._connection.write(_DELETE, *of)
            return
        await self._connection.write(_DELETE_AHEAD, _ahead(), *of)
        await self._connection.write(_FORGET, _ahead(), *of)

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        of = (namespace, workflow_id, run_id)
        noted = await self._connection.rows(_NOTED, *of)
        for (blob_id,) in noted:
            await self._connection.write(_DELETE_AHEAD, _ahead(), *of, blob_id)
        if noted:  # most runs have none, and leave no mark of it
            await self._connection.write(_FORGET_ALL, _ahead(), *of)


def _key(namespace: str, blob: Blob) -> tuple[str, str, str, str]:
    return namespace, blob.workflow_id, blob.run_id, blob.id


def _ahead() -> int:
    return time.time_ns() // 1000 + _DELETE_AHEAD_US
