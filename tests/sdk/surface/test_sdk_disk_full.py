"""A disk that is full while runs are under way, with engine, worker and client in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from perdure import Client, task, workflow
from perdure._client.backend import PortsBackend
from perdure.worker import Worker
from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded

FULL = threading.Event()
RUNS = 30
PAGES = 1_000_000


@task
async def plus_one(number: int) -> int:
    while not FULL.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.02)
    return number + 1


@workflow
async def steps(number: int) -> int:
    for _ in range(10):
        number = await plus_one(number)
    return number


def test_runs_wait_while_the_disk_is_full_and_complete_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        opened = await open_sqlite(tmp_path / "db.sqlite", SystemClock())
        ports, connection = opened.ports, opened._database._connection
        backend = PortsBackend("default")
        backend.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)
        worker = Worker(ports.broker, [plus_one, steps])
        async with Embedded(ports), Client(backend) as client:
            working = asyncio.create_task(worker.run())
            runs = [await client.start(steps, number) for number in range(RUNS)]
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            FULL.set()
            while "database or disk is full; it is tried again" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            late = asyncio.create_task(client.start(steps, RUNS))
            await asyncio.sleep(0.5)  # the engines and the worker try, and fail, again and again
            connection.execute(f"PRAGMA max_page_count = {PAGES}")
            runs.append(await late)
            assert [await run.result(timeout=30) for run in runs] == [number + 10 for number in range(RUNS + 1)]
            worker.drain()
            await working
        await opened.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(scenario(), 60))
