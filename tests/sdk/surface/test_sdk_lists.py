"""Lists of runs: what cannot be asked for is a mistake of the caller, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from perdure import Client, RunFilter
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.socket import serve
from perdure_runtime.clock import SystemClock


@asynccontextmanager
async def in_memory(path: Path) -> AsyncIterator[Client]:
    async with Client.embedded(worker=False) as client:
        yield client


@asynccontextmanager
async def on_sqlite(path: Path) -> AsyncIterator[Client]:
    async with Client.embedded(worker=False, db=path / "runs.sqlite") as client:
        yield client


@asynccontextmanager
async def by_socket(path: Path) -> AsyncIterator[Client]:
    server = await serve(memory_ports(SystemClock()), path / "dev.sock")
    try:
        async with Client.connect(path / "dev.sock") as client:
            yield client
    finally:
        await server.close()


@pytest.mark.parametrize("opened", [in_memory, on_sqlite, by_socket])
@pytest.mark.asyncio
async def test_a_cursor_of_no_page_and_no_runs_on_a_page_are_value_errors(
    opened: Callable[[Path], AbstractAsyncContextManager[Client]], tmp_path: Path
) -> None:
    async with asyncio.timeout(60), opened(tmp_path) as client:
        for cursor in ("garbage", "AAAA", ""):
            with pytest.raises(ValueError, match="is the cursor of no page"):
                await client.list(cursor=cursor)
        for limit in (0, -1):
            with pytest.raises(ValueError, match="limit must be at least 1"):
                await client.list(limit=limit)
        assert not (await client.list()).runs


def test_a_status_that_no_run_can_have_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"status must be one of running, paused, stuck, failed.*not 'bogus'"):
        RunFilter(status="bogus")
    assert RunFilter(status="").status == ""
