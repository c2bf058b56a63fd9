"""A connection to Cassandra lives however its bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from perdure_runtime.adapters.cassandra.connection import connect
from tests.servers import clean

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]

_BIT = 5
"""Bytes. Shorter than any header of the protocol."""


async def test_a_header_that_arrives_in_two_reads_does_not_end_the_connection() -> None:
    settings = clean.cassandra_settings("system")
    async with _slow_to_begin(settings.port) as port:
        connection = await connect(replace(settings, port=port), None)
        try:
            for _ in range(20):
                assert await connection.rows("SELECT release_version FROM system.local WHERE key = ?", "local")
        finally:
            await connection.close()


@asynccontextmanager
async def _slow_to_begin(port: int) -> AsyncIterator[int]:
    """A way to a port on which the first bytes of each answer arrive before the rest of it."""
    ways: set[asyncio.Task[None]] = set()

    async def carry(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(client, to_server, pause=False))
                both.create_task(_pass_on(server, to_client, pause=True))
        finally:
            for writer in (to_client, to_server):
                writer.close()
                await writer.wait_closed()

    def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        ways.add(asyncio.create_task(carry(client, to_client)))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]
    await asyncio.gather(*ways)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, pause: bool) -> None:
    while data := await source.read(65_536):
        if pause:
            sink.write(data[:_BIT])
            await sink.drain()
            await asyncio.sleep(0.005)  # so that they are read alone
            data = data[_BIT:]
        sink.write(data)
        await sink.drain()
    sink.close()
