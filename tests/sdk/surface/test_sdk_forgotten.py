"""A run that ends without waiting for what it began."""

from __future__ import annotations

import asyncio
import logging

import pytest

from perdure import Client, any_of, sleep, task, workflow


@task
async def endless(n: int) -> int:
    await asyncio.sleep(3600)
    return n


@task
async def quick() -> int:
    return 1


@workflow
async def forgets() -> int:
    endless(1)
    await sleep(0)
    return 1


@workflow
async def decides() -> int:
    return await any_of(quick(), endless(2))


def test_a_task_that_nobody_awaited_is_told_when_the_end_cancels_it(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(forgets, decides, endless, quick) as client:
            assert await client.execute(forgets, id="f") == 1
            assert await client.execute(decides, id="d") == 1

    with caplog.at_level(logging.WARNING, "perdure.workflow"):
        asyncio.run(work())
    (told,) = [record.getMessage() for record in caplog.records if record.name == "perdure.workflow"]
    assert told.startswith("run f of forgets completed while task endless (position 0) was under way")
    assert "write `await endless(...)`" in told
