"""Deliveries that took their worker along, and those that only look like it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

import pytest

from perdure._worker.turn_thread import BEGUN_MAX
from perdure.task import task
from perdure.workflow import query, workflow
from perdure_runtime.adapters.queues import Holding
from perdure_runtime.adapters.subscriptions import Entry
from perdure_schemas import topics
from perdure_schemas.common import Address, Query
from perdure_schemas.messages import AttemptOutcome, AttemptStarted, QueryResult, RunTask, WorkflowTaskCompleted
from tests.sdk.worker.engine import Engine, Run, json, working

pytestmark = pytest.mark.asyncio
CALLS: list[str] = []
"""What began and what ran, in order."""


@task
async def double(n: int) -> int:
    return 2 * n


@task
async def told(name: str, seconds: float) -> None:
    CALLS.append(f"{name} runs")
    await asyncio.sleep(seconds)
    CALLS.append(f"{name} ends")


OPEN = threading.Event()


@task
async def held(name: str) -> None:
    CALLS.append(f"{name} runs")
    while not OPEN.is_set():  # noqa: ASYNC110  # it is set in another thread
        await asyncio.sleep(0.001)
    CALLS.append(f"{name} ends")


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@workflow
async def tells(name: str) -> None:
    CALLS.append(f"{name} runs")


@workflow
class Asked:
    async def run(self) -> None:
        await double(1)

    @query
    def question(self) -> int:
        CALLS.append("question runs")
        return 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    begin = Holding.begin

    def told_begin(self: Holding, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        CALLS.append(f"{len(entries)} begin")
        begin(self, entries)

    monkeypatch.setattr(Holding, "begin", told_begin)
    CALLS.clear()
    OPEN.clear()
    return CALLS


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


async def test_turns_that_run_inline_begin_one_by_one(calls: list[str]) -> None:
    async with working(tells, inline_turns=True) as (engine, worker):
        await worker.drain()
        for name in "ab":
            await Run(engine, "tells", name).ask()
        running = asyncio.create_task(worker.run())
        for _ in range(2):
            await engine.next(WorkflowTaskCompleted)
        assert calls == ["1 begin", "a runs", "1 begin", "b runs"]
        await worker.drain()
        await running


async def test_few_turns_have_begun_before_the_first_of_them_is_done(calls: list[str]) -> None:
    """What waits behind one that kills the worker does not die of it."""
    many = 3 * BEGUN_MAX
    async with working(tells) as (engine, worker):
        await worker.drain()
        for number in range(many):
            await Run(engine, "tells", str(number)).ask()
        running = asyncio.create_task(worker.run())
        for _ in range(many):
            await engine.next(WorkflowTaskCompleted)
        begun = ran = 0
        for call in calls:
            begun += int(call.removesuffix(" begin")) if call.endswith(" begin") else 0
            ran += call.endswith(" runs")
            assert ran <= begun <= ran + BEGUN_MAX
        assert (begun, ran) == (many, many)
        await worker.drain()
        await running


async def test_attempts_begin_before_they_run(calls: list[str]) -> None:
    async with working(told) as (engine, _):
        await engine.run_task("told", "a", 0)
        await engine.next(AttemptOutcome)
        assert calls == ["1 begin", "a runs", "a ends"]


async def test_the_last_try_of_an_attempt_is_alone(calls: list[str]) -> None:
    async with working(told) as (engine, worker):
        await worker.drain()
        await engine.run_task("told", "suspect", 0.3)
        await engine.lose(topics.task_run("told"), "shared", 2)
        calls.clear()
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        await engine.run_task("told", "beside", 0)
        for _ in range(2):
            await engine.next(AttemptOutcome)
        assert calls == ["1 begin", "suspect runs", "suspect ends", "1 begin", "beside runs", "beside ends"]
        await worker.drain()
        await running


async def test_the_same_attempt_twice_dies_twice(calls: list[str]) -> None:
    """One execution answers both, so it takes both along."""
    async with working(held) as (engine, _):
        run = await engine.run_task("held", "a")
        await until(lambda: "a runs" in calls)
        await engine.send(topics.task_run("held"), run)
        await until(lambda: calls.count("1 begin") == 2)
        OPEN.set()
        await engine.next(AttemptOutcome)
        assert calls == ["1 begin", "a runs", "1 begin", "a ends"]


async def test_a_query_that_took_three_workers_along_is_refused(calls: list[str]) -> None:
    async with working(Asked) as (engine, worker):
        await worker.drain()
        run = Run(engine, "Asked")
        asked = Query(query_id="q-1", name="question", args=json(), reply_to=Address(topics.inbox("client"), "q-1"))
        await run.ask(queries=[asked])
        await engine.lose(topics.workflow_run("Asked"), "key-shared", 3)
        calls.clear()
        running = asyncio.create_task(worker.run())
        answer = await engine.next(QueryResult)
        assert answer.failure is not None
        assert (answer.status, answer.failure.name) == ("refused", "WorkerDied")
        assert calls == []
        await worker.drain()
        await running
