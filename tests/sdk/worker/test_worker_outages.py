"""A worker whose broker takes no answers for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.task import task
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas import topics
from perdure_schemas.messages import AttemptOutcome, TaskOutcome
from tests.sdk.worker.engine import PATIENCE_S, outcome_of, value, working

pytestmark = pytest.mark.asyncio


@task
async def double(n: int) -> int:
    return 2 * n


async def test_an_outage_of_the_broker_delays_the_answer_only() -> None:
    async with working(double) as (engine, worker):
        await worker.drain()
        outages = [StorageUnavailable("disk full"), StorageUnavailable("disk full")]
        publisher = engine.broker.publisher()
        healthy = type(publisher).publish

        async def publish(self: Any, batch: Any) -> None:
            if any(isinstance(m.body, TaskOutcome) for _, m in batch) and outages:
                raise outages.pop()
            await healthy(self, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(publisher), "publish", publish)
            running = asyncio.create_task(worker.run())
            run = await engine.run_task("double", 2)
            assert value((await outcome_of(engine, run)).result) == 4
            await worker.drain()
            await running
        assert not outages


async def test_an_attempt_that_comes_again_while_its_answer_waits_for_the_broker_does_not_run_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker whose disk is full goes on delivering what it cannot take the answers of."""
    calls: list[int] = []
    waits, taken = asyncio.Event(), asyncio.Event()

    @task
    async def charge(n: int) -> int:
        calls.append(n)
        return n

    async with working(charge) as (engine, _):
        publisher = type(engine.broker.publisher())
        healthy = publisher.publish

        async def publish(self: Any, batch: Any) -> None:
            if any(isinstance(message.body, AttemptOutcome) for _, message in batch):
                waits.set()
                await taken.wait()
            await healthy(self, batch)

        monkeypatch.setattr(publisher, "publish", publish)
        run = await engine.run_task("charge", 7)
        await asyncio.wait_for(waits.wait(), PATIENCE_S)
        await engine.send(topics.task_run("charge"), run)
        other = await engine.run_task("charge", 8)
        async with asyncio.timeout(PATIENCE_S):
            while 8 not in calls:  # noqa: ASYNC110  # so that what came before it was looked at
                await asyncio.sleep(0.001)
        taken.set()
        assert value((await outcome_of(engine, run)).result) == 7
        assert value((await outcome_of(engine, other)).result) == 8
        assert calls == [7, 8]
        again = await engine.run_task("charge", 9, attempt_id=run.attempt_id)  # nothing is kept of what is told
        assert value((await outcome_of(engine, again)).result) == 9
