"""Defaults of a workflow are obeyed: by runs that clients and parents start, where these give none of their own."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Any

import pytest

from perdure import Channel, ChildTimedOut, Handle, RunFilter, RunTimedOut, continue_as_new, workflow, workflow_of
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.ports import Routing
from perdure_schemas.common import RETENTION_MS
from perdure_schemas.events import Started
from perdure_schemas.messages import RunPurged
from tests.sdk.semantics.world import World, events, until

pytestmark = pytest.mark.asyncio

SOON_MS = 300
DAY = dt.timedelta(days=1)
DAY_MS = 86_400_000


@workflow
class Waits:
    go: Channel[None] = Channel()

    async def run(self) -> str:
        await self.go.receive()
        return "gone"


@workflow
async def returns() -> str:
    return "done"


@workflow(retention=DAY)
async def declares() -> str:
    return "done"


@workflow
async def asks(own: bool) -> str:
    child = workflow_of(Waits).options(id="kid")
    if own:
        child = child.options(timeout=DAY, retention=DAY)
    try:
        return await child()
    except ChildTimedOut:
        return "timed out"


@workflow
async def twice(count: int = 1) -> int:
    if count < 2:
        continue_as_new(twice, count + 1)
    return count


ALL = (Waits, returns, declares, asks, twice)


async def declare(world: World, name: str, **defaults: int) -> None:
    await world.ports.routing.put("default", name, Routing(defaults=RunDefaults(**defaults)))


async def held(run: Handle[Any]) -> tuple[int | None, int]:
    """Time-out and retention, as the run recorded them."""
    (started,) = events(await run.history(), Started)
    return started.options.run_timeout_ms, started.options.retention_ms


async def test_a_run_without_a_time_out_gets_the_default_and_its_own_wins() -> None:
    async with World(*ALL) as world:
        await declare(world, "Waits", run_timeout_ms=SOON_MS)
        own = await world.client.start(Waits, timeout=DAY)
        with pytest.raises(RunTimedOut):
            await world.client.execute(Waits)
        assert (await own.describe()).status == "running"
        assert await held(own) == (DAY_MS, RETENTION_MS)
        await own.signal("go", None)
        assert await own.result() == "gone"


async def test_a_run_is_kept_for_the_default_unless_it_has_its_own() -> None:
    async with World(*ALL) as world:
        await declare(world, "returns", retention_ms=1)
        own = await world.client.start(returns, retention=DAY)
        usual = await world.client.start(returns, retention=dt.timedelta(milliseconds=RETENTION_MS))
        run = await world.client.start(returns)
        await until(lambda: any(purged.run_id == run.run_id for purged in world.spy.bodies(RunPurged)))
        assert [await own.result(), await usual.result()] == ["done", "done"]
        assert (await held(own), await held(usual)) == ((None, DAY_MS), (None, RETENTION_MS))
        assert {purged.run_id for purged in world.spy.bodies(RunPurged)} == {run.run_id}


async def test_what_the_code_declares_is_its_own_where_the_code_is_known() -> None:
    async with World(*ALL) as world:
        await declare(world, "declares", retention_ms=2 * DAY_MS)
        known, named = await world.client.start(declares), await world.client.start("declares")
        assert [await known.result(), await named.result()] == ["done", "done"]
        assert (await held(known), await held(named)) == ((None, DAY_MS), (None, 2 * DAY_MS))


@pytest.mark.parametrize("own", [False, True])
async def test_a_child_gets_the_defaults_of_its_own_workflow(own: bool) -> None:
    async with World(*ALL) as world:
        await declare(world, "Waits", run_timeout_ms=SOON_MS, retention_ms=2 * DAY_MS)
        await declare(world, "asks", retention_ms=3 * DAY_MS)
        parent, kid = await world.client.start(asks, own), world.client.handle("kid")
        if own:
            await kid.signal("go", None)
        assert await parent.result() == ("gone" if own else "timed out")
        with suppress(RunTimedOut):
            await kid.result()  # who was told of its end finds it, although lists are behind on a cluster
        assert await held(kid) == ((DAY_MS, DAY_MS) if own else (SOON_MS, 2 * DAY_MS))
        assert await held(parent) == (None, 3 * DAY_MS)


async def test_a_later_change_concerns_later_runs() -> None:
    async with World(*ALL) as world:
        await declare(world, "Waits", retention_ms=DAY_MS)
        run = await world.client.start(Waits, id="first")
        await declare(world, "Waits", retention_ms=1, run_timeout_ms=1)
        await world.restart_worker()
        await run.signal("go", None)
        assert await run.result() == "gone"
        await world.quiet()
        assert await held(run) == (None, DAY_MS)
        assert not world.spy.bodies(RunPurged)


async def test_each_run_of_a_chain_has_the_defaults() -> None:
    async with World(*ALL) as world:
        await declare(world, "twice", retention_ms=DAY_MS)
        run = await world.client.start(twice, id="chain")
        assert await run.result() == 2
        await world.quiet()
        ids = [found.run_id for found in (await world.client.list(RunFilter(workflow_id="chain"))).runs]
        assert len(ids) == 2
        for run_id in ids:
            assert await held(world.client.handle("chain", run_id=run_id)) == (None, DAY_MS)
