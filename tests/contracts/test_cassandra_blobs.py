"""What only Cassandra can get wrong: blobs are many rows, and whoever writes them may die in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure_runtime.adapters.cassandra.blobs import CHUNK_BYTES, CassandraBlobs
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas.blobs import made_of
from tests.contracts.test_contract_blobs import of_run
from tests.contracts.worlds import SteppedClock
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
DATA = bytes(5 * CHUNK_BYTES + 1)
BLOB = made_of("b", DATA)


def on_cassandra(work: Callable[[Connection], Awaitable[None]]) -> None:
    async def main() -> None:
        async with clean.cassandra() as connection:
            await work(connection)

    asyncio.run(main())


class Dying:
    """A connection that stops writing chunks after some."""

    def __init__(self, connection: Connection, chunks: int) -> None:
        self._connection = connection
        self._left = chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def write(self, cql: str, *values: object) -> None:
        if cql.startswith("INSERT INTO blob_chunks"):
            self._left -= 1
            if self._left < 0:
                raise StorageUnavailable("it died")
        await self._connection.write(cql, *values)


@pytest.mark.parametrize("chunks", [0, 3])
def test_half_a_blob_is_none_and_goes_with_its_run(chunks: int) -> None:
    async def work(connection: Connection) -> None:
        dying: Any = Dying(connection, chunks)
        blob = of_run(BLOB)
        with pytest.raises(StorageUnavailable):
            await CassandraBlobs(dying, SteppedClock()).put("ns", blob, DATA)
        blobs = CassandraBlobs(connection, SteppedClock())
        assert await blobs.get("ns", blob) is None
        await blobs.purge("ns", "w", "r")
        assert await clean.used_tables(connection) == []

    on_cassandra(work)


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_blob_without_one_of_its_chunks_is_none(number: int) -> None:
    async def work(connection: Connection) -> None:
        blobs = CassandraBlobs(connection, SteppedClock())
        await blobs.put("ns", BLOB, DATA)
        assert await blobs.get("ns", BLOB) == DATA
        sizes = [len(data) for (data,) in await connection.rows("SELECT data FROM blob_chunks")]
        assert sizes == [CHUNK_BYTES] * 5 + [1]
        await connection.write(
            "DELETE FROM blob_chunks WHERE namespace = 'ns' AND workflow_id = '' AND run_id = '' AND blob_id = ? "
            "AND number = ?",
            BLOB.id, number,
        )  # fmt: skip
        assert await blobs.get("ns", BLOB) is None

    on_cassandra(work)


def test_a_copy_that_arrives_after_its_run_was_purged_stays_away() -> None:
    async def work(connection: Connection) -> None:
        blobs = CassandraBlobs(connection, SteppedClock())
        await blobs.put("ns", of_run(BLOB), DATA)
        await blobs.purge("ns", "w", "r")
        await blobs.put("ns", of_run(BLOB), DATA)
        assert await blobs.get("ns", of_run(BLOB)) is None
        assert await clean.used_tables(connection) == []

    on_cassandra(work)
