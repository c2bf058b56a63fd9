"""A result that is there is given, however little time there is to wait for it."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Channel, Client, ResultTimeout, RunFailed, RunNotFound, WorkflowError, workflow
from tests.http.test_http_api import Api, fails, hello, with_api


@workflow
async def doubled(n: int) -> int:
    if n < 0:
        raise WorkflowError("negative")
    return 2 * n


@workflow
class Waits:
    go: Channel[None] = Channel()

    async def run(self) -> str:
        await self.go.receive()
        return "gone"


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
@pytest.mark.asyncio
async def test_a_result_that_is_there_is_given_at_once(seconds: float) -> None:
    async with asyncio.timeout(60), Client.embedded(doubled, Waits) as client:
        run = await client.start(doubled, 1, id="d")
        assert await run.result() == 2
        assert await run.result(seconds) == 2
        assert await client.handle("d").result(seconds) == 2
        failed = await client.start(doubled, -1)
        with pytest.raises(RunFailed, match="negative"):
            await failed.result()
        with pytest.raises(RunFailed, match="negative"):
            await failed.result(seconds)


@pytest.mark.asyncio
async def test_an_open_run_is_told_as_such_at_once() -> None:
    async with asyncio.timeout(60), Client.embedded(doubled, Waits) as client:
        run = await client.start(Waits)
        for _ in range(2):
            with pytest.raises(ResultTimeout, match="still open after 0 s, running"):
                await run.result(0)
        await run.signal(Waits.go)
        assert await run.result() == "gone"
        assert await run.result(0) == "gone"


@pytest.mark.asyncio
async def test_a_run_whose_id_another_one_has_is_told_as_such() -> None:
    async with asyncio.timeout(60), Client.embedded(doubled, Waits) as client:
        run = await client.start(Waits, id="w")
        other = await client.start(Waits, id="w", conflict="terminate-existing")
        told = f"run {run.run_id} of workflow id 'w' is not in force: another run has the id now, {other.run_id}"
        for call in (
            run.cancel(),
            run.resume(),
            run.pause(),
            run.query("any"),
            run.update("any"),
            run.signal(Waits.go),
            client.handle("w", run_id="none").result(),
            client.handle("w", run_id="none").describe(),
            client.handle("w", run_id="none").history(),
        ):
            with pytest.raises(RunNotFound, match=told.replace(run.run_id, f"(none|{run.run_id})")):
                await call


def test_the_blocking_client_gives_it_too() -> None:
    with Client.embedded(doubled).sync as client:
        run = client.start(doubled, 2)
        assert run.result() == 4
        assert run.result(timeout=0) == 4


def test_so_does_one_of_an_api() -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            run = await client.start(hello, 1)
            assert await run.result() == 2
            assert await run.result(timeout=0) == 2
            assert await client.handle(run.id).result(timeout=0) == 2
            failed = await client.start(fails, 1)
            with pytest.raises(RunFailed):
                await failed.result()
            with pytest.raises(RunFailed):
                await failed.result(timeout=0)

    with_api(work)
