"""Two builds of a workflow, each with a worker: where runs go on, and when they may move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import Handle, Refused, task, workflow
from perdure.worker import Worker
from perdure_runtime.ports import Routing
from perdure_schemas.events import RunMoved, TurnCommitted
from perdure_schemas.messages import MoveChecked, WorkerHello
from tests.sdk.semantics.world import Gate, World, described, events, until

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
ROUTING_KNOWN_SECONDS = 20
"""A replica asks for it once a second; machines are loaded."""


@task
async def charge() -> str:
    await GATES["charge"].passed()
    return "charged"


@task
async def refund() -> str:
    return "refunded"


@workflow(name="order")
async def order_a() -> str:
    return f"a: {await charge()}"


@workflow(name="order")
async def order_b() -> str:
    """Does as before, and says so otherwise."""
    return f"b: {await charge()}"


@workflow(name="order")
async def order_c() -> str:
    """Does something else instead."""
    return f"c: {await refund()}"


@workflow(name="order")
async def order_with_bug() -> str:
    await charge()
    raise KeyError("a bug of build a")


@asynccontextmanager
async def serving(world: World, build: str, *objects: object) -> AsyncIterator[None]:
    worker = Worker(world.spy, objects, build=build)
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


@asynccontextmanager
async def pinned(first: Any, second: Any) -> AsyncIterator[tuple[World, Handle[Any], Gate]]:
    """Workers of builds a and b, and a run that is pinned to a and waits for its task."""
    gate = GATES["charge"] = Gate()
    async with World() as world, serving(world, "a", first, charge), serving(world, "b", second, charge, refund):
        await world.ports.routing.put("default", "order", Routing(current="a"))
        run = await world.client.start(first, id="o")
        await gate.reached()
        yield world, run, gate


async def builds(run: Handle[Any]) -> list[str]:
    """Of its turns."""
    return [turn.build for turn in events(await run.history(), TurnCommitted)]


async def test_a_run_stays_on_its_build() -> None:
    async with pinned(order_a, order_b) as (world, run, gate):
        await world.ports.routing.put("default", "order", Routing(current="b"))
        gate.open()
        assert await run.result() == "a: charged"
        assert await builds(run) == ["a", "a"]
        async with asyncio.timeout(ROUTING_KNOWN_SECONDS):
            while await world.client.execute(order_b) != "b: charged":
                pass  # by another replica than that which was told


async def test_a_run_moves_to_a_build_that_replays_it() -> None:
    async with pinned(order_a, order_b) as (_, run, gate):
        await run.move("b", reason="new receipt", actor="ada")
        gate.open()
        assert await run.result() == "b: charged"
        assert list(events(await run.history(), RunMoved)) == [RunMoved(build="b", reason="new receipt", actor="ada")]
        assert (await builds(run))[-1] == "b"


async def test_a_run_does_not_move_to_a_build_that_does_otherwise() -> None:
    async with pinned(order_a, order_c) as (_, run, gate):
        with pytest.raises(Refused, match="build 'b' cannot replay the run") as refused:
            await run.move("b")
        for said in ("WorkflowChangedError", "position 0", "task charge", "task refund", "test_semantics_builds.py"):
            assert said in str(refused.value)
        gate.open()
        assert await run.result() == "a: charged"
        assert not list(events(await run.history(), RunMoved))


async def test_a_build_without_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._client.control.MOVE_SECONDS_MAX", 0.1)
    async with pinned(order_a, order_b) as (_, run, gate):
        with pytest.raises(Refused, match="no worker of build 'none' has replayed the run within 30 s"):
            await run.move("none")
        gate.open()
        assert await run.result() == "a: charged"


async def test_a_check_that_comes_too_late_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine must get the question in time on a loaded machine, too; the answer begins after the client gave up.
    monkeypatch.setattr("perdure._client.control.MOVE_SECONDS_MAX", 0.5)
    monkeypatch.setattr("perdure_core.workflow_engine.moves.MOVE_CHECK_MAX_MS", 500)
    async with pinned(order_a, order_b) as (world, run, gate):
        with pytest.raises(Refused):
            await run.move("late")
        async with serving(world, "late", order_b, charge):
            await until(lambda: bool(world.spy.bodies(MoveChecked)))
            await world.quiet()
            gate.open()
            assert await run.result() == "a: charged"


@pytest.mark.parametrize("fixed", [True, False])
async def test_a_stuck_run_is_rescued_by_the_build_that_replaces_its_own(fixed: bool) -> None:
    gate = GATES["charge"] = Gate()
    gate.open()
    async with World() as world, serving(world, "a", order_with_bug, charge):
        await world.ports.routing.put("default", "order", Routing(current="a"))
        run = await world.client.start(order_with_bug, id="o")
        await described(run, "stuck")
        await world.ports.routing.put("default", "order", Routing(current="b"))
        async with serving(world, "b", order_b if fixed else order_c, charge, refund):
            if fixed:
                assert await run.result() == "b: charged"
                (moved,) = events(await run.history(), RunMoved)
                assert (moved.build, moved.reason) == ("b", "rescued: it was stuck on build a")
            else:
                await until(lambda: bool(world.spy.bodies(MoveChecked)))
                await world.quiet()
                assert (await run.describe()).build == "a"
                assert (await run.describe()).status == "stuck"
                await run.terminate()


async def test_a_build_that_is_not_current_rescues_nothing() -> None:
    gate = GATES["charge"] = Gate()
    gate.open()
    async with World() as world, serving(world, "a", order_with_bug, charge):
        await world.ports.routing.put("default", "order", Routing(current="a"))
        run = await world.client.start(order_with_bug, id="o")
        await described(run, "stuck")
        async with serving(world, "b", order_b, charge):
            await until(lambda: any(hello.build == "b" for hello in world.spy.bodies(WorkerHello)))
            await world.quiet()
            assert (await run.describe()).build == "a"
            await run.terminate()
