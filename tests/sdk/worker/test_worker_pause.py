"""A worker that takes no more work for a while, as /load of its probe port tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from perdure import task, workflow
from perdure.worker import Worker
from perdure_runtime.ports import Delivery
from perdure_schemas import topics
from perdure_schemas.messages import AttemptCancelRequested, AttemptOutcome, AttemptStarted, WorkflowTaskCompleted
from tests.sdk.worker.engine import Engine, Run, value, working
from tests.sdk.worker.probing import SLOTS, TOKEN, Probes, probed

pytestmark = pytest.mark.asyncio
IDLE = {"receiving": True, "in_flight": 0, "slots": SLOTS}


class Gate:
    """Opened by the test, so that a task is in progress for as long as it wants."""

    event: asyncio.Event
    begun: asyncio.Event


@task
async def held() -> str:
    Gate.begun.set()
    while not Gate.event.is_set():  # noqa: ASYNC110  of another loop
        await asyncio.sleep(0.005)
    return "done"


@task
async def double(n: int) -> int:
    return 2 * n


@workflow
async def doubled(n: int) -> int:
    return await double(n)


@pytest.fixture(autouse=True)
def gate() -> None:
    Gate.event, Gate.begun = asyncio.Event(), asyncio.Event()


async def _begun() -> None:
    while not Gate.begun.is_set():  # noqa: ASYNC110  of another loop
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(*objects: object) -> AsyncIterator[tuple[Engine, Probes]]:
    engine = Engine()
    await engine.open()
    async with asyncio.timeout(60), probed(engine.broker, *objects) as (worker, asked):
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        yield engine, asked
        await worker.drain()
        await running
    await engine.close()


async def test_work_in_progress_goes_on_and_new_work_goes_to_others() -> None:
    async with serving(held, double) as (engine, asked):
        assert await asked.get() == (200, IDLE)
        assert await asked.get("readyz") == (200, {"ok": True, "problems": []})
        first = await engine.run_task("held")
        await _begun()
        for _ in range(2):
            assert await asked.post("drain") == (200, {"receiving": False, "in_flight": 1, "slots": SLOTS})
        assert await asked.get("readyz") == (503, {"ok": False, "problems": ["draining"]})
        other = Worker(engine.broker, [double], worker_id="worker-2")
        running = asyncio.create_task(other.run())
        await other.ready.wait()
        second = await engine.run_task("double", 4)
        message, outcome = await engine.next_message(AttemptOutcome)
        assert (message.emitter, outcome.attempt_id) == ("worker-2", second.attempt_id)
        assert (await asked.get())[1]["in_flight"] == 1
        Gate.event.set()
        message, outcome = await engine.next_message(AttemptOutcome)
        assert (message.emitter, outcome.attempt_id, value(outcome.result)) == ("worker-1", first.attempt_id, "done")
        assert await asked.until(0) == {"receiving": False, "in_flight": 0, "slots": SLOTS}
        await other.drain()
        await running
        third = await engine.run_task("double", 5)
        await asyncio.sleep(0.05)
        assert not engine.has(AttemptOutcome), "nobody takes it"
        for _ in range(2):
            assert (await asked.post("resume"))[1]["receiving"]
        assert (await engine.next(AttemptOutcome)).attempt_id == third.attempt_id
        assert await asked.until(0) == IDLE
        assert (await asked.get("readyz"))[0] == 200


async def test_what_is_in_progress_can_still_be_canceled() -> None:
    async with serving(held) as (engine, asked):
        run = await engine.run_task("held")
        started = await engine.next(AttemptStarted)
        await asked.post("drain")
        request = AttemptCancelRequested(task_id=run.task_id, attempt_id=run.attempt_id, reason="enough")
        await engine.send(started.inbox, request)
        assert (await engine.next(AttemptOutcome)).outcome == "canceled"


async def test_turns_go_to_others_with_what_waits_for_them() -> None:
    async with serving(doubled, double) as (engine, asked):
        run = Run(engine, "doubled", 4)
        await run.turn()
        assert await asked.until(0)
        await asked.post("drain")
        topic = topics.workflow_run("doubled")
        await Run(engine, "doubled", 5).ask()
        other = await engine.broker.subscribe("default", [topic], "workers", "key-shared")
        (turn,) = await other.receive()
        assert isinstance(turn, Delivery)
        await other.close()
        await asked.post("resume")
        assert (await engine.next(WorkflowTaskCompleted)).workflow_id != run.id


async def test_only_who_shows_the_token_of_the_worker_may_stop_it() -> None:
    engine = Engine()
    for token, shown in (
        (TOKEN, None), (TOKEN, "Bearer other"), (TOKEN, TOKEN), ("", None), ("", "Bearer "), ("", "Bearer secret"),
    ):  # fmt: skip
        async with probed(engine.broker, double, token=token) as (worker, asked):
            for action in ("drain", "resume"):
                status, told = await asked.post(action, shown)
                assert (status, list(told)) == (403, ["problems"])
            assert worker.receiving
            assert (await asked.get())[0] == 200


async def test_a_worker_that_was_stopped_before_it_runs_takes_nothing_when_it_does() -> None:
    engine = Engine()
    await engine.open()
    async with probed(engine.broker, double) as (worker, asked):
        assert await asked.post("drain") == (200, {"receiving": False, "in_flight": 0, "slots": SLOTS})
        await engine.run_task("double", 1)
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        await asyncio.sleep(0.05)
        assert not engine.has(AttemptOutcome)
        await asked.post("resume")
        assert value((await engine.next(AttemptOutcome)).result) == 2
        await worker.drain()
        await running
    await engine.close()


async def test_a_worker_that_ends_does_not_resume() -> None:
    async with working(held) as (engine, worker):
        await engine.run_task("held")
        await _begun()
        ended = worker.drain()
        assert not worker.receiving
        await worker.resume()
        assert not worker.receiving
        await engine.run_task("held")
        other = await engine.broker.subscribe("default", [topics.task_run("held")], "workers", "shared")
        await other.receive()
        await other.close()
        Gate.event.set()
        await ended
