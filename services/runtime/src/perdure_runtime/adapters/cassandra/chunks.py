"""Commits above a megabyte, in pieces: written before the commit that names them, found by the run they are of."""

from __future__ import annotations

import asyncio

from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RunKey

CHUNK_BYTES = 1 << 20
"""A row above a megabyte or so costs a node more than its parts do."""
_AT_ONCE = 4
"""Megabytes on their way to or from the nodes per commit."""

_NOTE = "INSERT INTO chunked_commits (namespace, workflow_id, run_id, commit_id) VALUES (?, ?, ?, ?)"
_NOTED = "SELECT commit_id FROM chunked_commits WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_FORGET = "DELETE FROM chunked_commits WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND commit_id = ?"
_FORGET_ALL = "DELETE FROM chunked_commits WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_PUT = "INSERT INTO chunks (namespace, workflow_id, run_id, commit_id, number, data) VALUES (?, ?, ?, ?, ?, ?)"
_GET = "SELECT data FROM chunks WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND commit_id = ?"
_DELETE = "DELETE FROM chunks WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND commit_id = ?"


class Chunks:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, key: RunKey, run_id: str, commit_id: str, data: bytes) -> None:
        """Durable on return. Noted first: pieces of a commit that was lost are found when its run is purged."""
        of = (key.namespace, key.workflow_id, run_id, commit_id)
        await self._connection.write(_NOTE, *of)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def put(number: int) -> None:
            async with limit:
                piece = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
                await self._connection.write(_PUT, *of, number, piece)

        await asyncio.gather(*(put(number) for number in range(-(-len(data) // CHUNK_BYTES))))

    async def read(self, key: RunKey, run_id: str, commit_id: str) -> bytes:
        rows = await self._connection.rows(_GET, key.namespace, key.workflow_id, run_id, commit_id, page=_AT_ONCE)
        if not rows:
            raise StorageUnavailable(f"the pieces of commit {commit_id} of run {run_id} cannot be read now")
        return b"".join(data for (data,) in rows)

    async def delete(self, key: RunKey, run_id: str, commit_id: str) -> None:
        of = (key.namespace, key.workflow_id, run_id, commit_id)
        await self._connection.write(_DELETE, *of)
        await self._connection.write(_FORGET, *of)

    async def purge(self, key: RunKey, run_id: str) -> None:
        """Every piece of every commit of the run, those that were lost too."""
        of = (key.namespace, key.workflow_id, run_id)
        for (commit_id,) in await self._connection.rows(_NOTED, *of):
            await self._connection.write(_DELETE, *of, commit_id)
        await self._connection.write(_FORGET_ALL, *of)
