"""Blobs as rows, whole: what one turn of the loop writes is one transaction, so there are no half writes.

To write, read or delete a row of 16 MB holds the loop for some 20 ms. Of a run's own it is deleted with the run, of one
in transit when it has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.blobs import aside
from perdure_runtime.ports import TRANSIT_TTL_MS
from perdure_schemas.blobs import Blob

_DELETED_BYTES_MAX = 4 * 1024 * 1024
_DELETED_ROWS_MAX = 16
"""In one transaction, while there is more than one row: it holds the loop for some 5 ms."""
_OF = "namespace = ? AND workflow_id = ? AND run_id = ? AND blob_id = ?"


class SqliteBlobs:
    def __init__(self, database: Database, gone_by: Callable[[], int]) -> None:
        """`gone_by`: what expires at this time, or earlier, is gone."""
        self._database = database
        self._gone_by = gone_by

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        expires_at = None if blob.run_id else self._database.clock.now() + TRANSIT_TTL_MS
        self._database.write(
            "INSERT OR REPLACE INTO blobs (namespace, workflow_id, run_id, blob_id, data, expires_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (*_key(namespace, blob), data, expires_at),
        )
        await self._database.settled()

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        rows = self._database.read(
            f"SELECT data FROM blobs WHERE {_OF} AND (expires_at IS NULL OR expires_at > ?)",
            (*_key(namespace, blob), self._gone_by()),
        )
        await self._database.settled()
        data: bytes | None = rows[0][0] if rows else None
        return data if data is not None and await aside(len(data), lambda: blob.is_of(data)) else None

    async def remove(self, namespace: str, blob: Blob) -> None:
        self._database.write(f"DELETE FROM blobs WHERE {_OF}", _key(namespace, blob))
        await self._database.settled()

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        """Whoever is interrupted has to come again, as whoever cannot write."""
        of_run = "namespace = ? AND workflow_id = ? AND run_id = ?"
        while delete_some(self._database, of_run, (namespace, workflow_id, run_id)):
            await self._database.settled()  # others have their turn
        await self._database.settled()


def delete_some(database: Database, where: str, parameters: Sequence[Any]) -> bool:
    """Delete as many as the loop has time for in one turn; whether there were any."""
    rows = database.read(f"SELECT number, length(data) FROM blobs WHERE {where} LIMIT {_DELETED_ROWS_MAX}", parameters)
    doomed, size = list[tuple[int]](), 0
    for number, length in rows:
        size += length
        if doomed and size > _DELETED_BYTES_MAX:
            break
        doomed.append((number,))
    if doomed:
        database.write_many("DELETE FROM blobs WHERE number = ?", doomed)
    return bool(doomed)


def _key(namespace: str, blob: Blob) -> tuple[str, str, str, str]:
    return namespace, blob.workflow_id, blob.run_id, blob.id
