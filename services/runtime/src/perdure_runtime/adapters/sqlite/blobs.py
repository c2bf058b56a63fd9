"""Blobs as rows, whole: what one turn of the loop writes is one transaction, so there are no half writes.

A row of 16 MB holds the loop for some 20 ms. Of a run's own it is deleted with the run, of one in transit when it has
expired.
"""

from __future__ import annotations

from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.blobs import aside
from perdure_runtime.ports import TRANSIT_TTL_MS
from perdure_schemas.blobs import Blob

_OF = "namespace = ? AND workflow_id = ? AND run_id = ? AND blob_id = ?"


class SqliteBlobs:
    def __init__(self, database: Database) -> None:
        self._database = database

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
            (*_key(namespace, blob), self._database.clock.now()),
        )
        await self._database.settled()
        data: bytes | None = rows[0][0] if rows else None
        return data if data is not None and await aside(len(data), lambda: blob.is_of(data)) else None

    async def remove(self, namespace: str, blob: Blob) -> None:
        self._database.write(f"DELETE FROM blobs WHERE {_OF}", _key(namespace, blob))
        await self._database.settled()

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        self._database.write(
            "DELETE FROM blobs WHERE namespace = ? AND workflow_id = ? AND run_id = ?",
            (namespace, workflow_id, run_id),
        )
        await self._database.settled()


def _key(namespace: str, blob: Blob) -> tuple[str, str, str, str]:
    return namespace, blob.workflow_id, blob.run_id, blob.id
