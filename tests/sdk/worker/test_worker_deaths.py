"""Deliveries that took their worker along, and those that only look like it."""

from __future__ import annotations

import asyncio

import pytest

from perdure.task import task
from perdure_schemas import topics
from perdure_schemas.messages import AttemptOutcome, AttemptStarted, RunTask
from tests.sdk.worker.engine import Engine, working

pytestmark = pytest.mark.asyncio


@task
async def double(n: int) -> int:
    return 2 * n


async def redeliver(engine: Engine, name: str, times: int) -> RunTask:
    """A RunTask that so many workers took and did not live to answer."""
    run = await engine.run_task(name, 1)
    await engine.lose(topics.task_run(name), "shared", times)
    return run


async def test_a_redelivered_attempt_is_announced_before_it_runs() -> None:
    async with working(double) as (engine, worker):
        await worker.drain()
        run = await redeliver(engine, "double", 1)
        running = asyncio.create_task(worker.run())
        outcome = await engine.next(AttemptOutcome)
        started = await engine.next(AttemptStarted)
        assert (started.attempt_id, started.deliveries, started.inbox) == (run.attempt_id, 2, "inbox.worker-1")
        assert outcome.outcome == "completed"
        await worker.drain()
        await running


async def test_an_attempt_that_took_three_workers_along_is_not_run() -> None:
    async with working(double) as (engine, worker):
        await worker.drain()
        await redeliver(engine, "double", 3)
        running = asyncio.create_task(worker.run())
        outcome = await engine.next(AttemptOutcome)
        assert outcome.failure is not None
        assert (outcome.failure.name, outcome.failure.retryable) == ("WorkerDied", True)
        assert not engine.has(AttemptStarted)
        await worker.drain()
        await running


async def test_an_attempt_that_three_workers_handed_back_is_run() -> None:
    """Three deployments in the middle of it are no three deaths."""
    async with working(double) as (engine, worker):
        await worker.drain()
        await engine.run_task("double", 1)
        for _ in range(3):
            drained = await engine.broker.subscribe("default", [topics.task_run("double")], "workers", "shared")
            await drained.receive()
            await drained.close()
        running = asyncio.create_task(worker.run())
        assert (await engine.next(AttemptOutcome)).outcome == "completed"
        assert (await engine.next(AttemptStarted)).deliveries == 1
        await worker.drain()
        await running
