"""A worker on Pulsar that takes no more work ends once what it has, others get what comes, and it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from perdure import task, workflow
from perdure_runtime.adapters.pulsar import PulsarBroker
from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_schemas.messages import AttemptOutcome, WorkflowTaskCompleted
from tests.sdk.worker.engine import Engine, Run
from tests.sdk.worker.probing import SLOTS, Probes, probed
from tests.servers import clean
from tests.servers.replicas import NAMESPACE

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]
TASKS = 40


class Gate:
    """Opened by the test, so that a task is in progress for as long as it wants."""

    open: bool
    begun: list[int]


@task
async def held(number: int) -> int:
    Gate.begun.append(number)
    while not Gate.open:  # noqa: ASYNC110  of another loop
        await asyncio.sleep(0.01)
    return number


@task
async def double(n: int) -> int:
    return 2 * n


@workflow
async def doubled(n: int) -> int:
    return await double(n)


class Cluster:
    """Engines' topics on Pulsar, and workers that share a connection."""

    def __init__(self, engine: Engine, broker: PulsarBroker) -> None:
        self.engine = engine
        self.broker = broker

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[Probes]:
        async with probed(self.broker, held, double, doubled, name=name) as (worker, asked):
            running = asyncio.create_task(worker.run())
            await worker.ready.wait()
            yield asked
            await worker.drain()
            await running

    async def outcomes(self, count: int) -> dict[str, list[str]]:
        """Who ended which attempts."""
        found: dict[str, list[str]] = {}
        for _ in range(count):
            message, outcome = await self.engine.next_message(AttemptOutcome)
            found.setdefault(message.emitter, []).append(outcome.attempt_id)
        return found


@pytest_asyncio.fixture
async def pulsar() -> AsyncIterator[Cluster]:
    Gate.open, Gate.begun = False, []
    settings = clean.pulsar_settings()
    async with (
        asyncio.timeout(300),
        clean.pulsar_broker([NAMESPACE], settings) as broker,
        open_admin(settings) as admin,
    ):
        await admin.init(NAMESPACE)
        engine = Engine()
        engine.broker, engine.publisher = broker, broker.publisher()  # for those in memory
        await engine.open()
        yield Cluster(engine, broker)
        await engine.close()


async def test_attempts_in_progress_end_once_and_others_take_the_rest(pulsar: Cluster) -> None:
    engine = pulsar.engine
    async with pulsar.worker("worker-1") as one:
        mine = [(await engine.run_task("held", number)).attempt_id for number in range(2)]
        await one.until(2)
        assert await one.post("drain") == (200, {"receiving": False, "in_flight": 2, "slots": SLOTS})
        async with pulsar.worker("worker-2") as two:
            others = [(await engine.run_task("double", number)).attempt_id for number in range(TASKS)]
            found = await pulsar.outcomes(TASKS)
            assert (list(found), sorted(found["worker-2"])) == (["worker-2"], sorted(others))
            Gate.open = True
            found = await pulsar.outcomes(2)
            assert (list(found), sorted(found["worker-1"])) == (["worker-1"], sorted(mine))
            assert await one.until(0) == {"receiving": False, "in_flight": 0, "slots": SLOTS}
            assert (await one.post("resume"))[1]["receiving"]
            assert (await two.post("drain"))[0] == 200
            await two.until(0)
            more = [(await engine.run_task("held", number)).attempt_id for number in range(2, TASKS)]
            found = await pulsar.outcomes(len(more))
            assert (list(found), sorted(found["worker-1"])) == (["worker-1"], sorted(more))
    assert sorted(Gate.begun) == list(range(TASKS)), "each ran once"


async def test_turns_in_store_go_to_others_at_once(pulsar: Cluster) -> None:
    engine = pulsar.engine
    async with pulsar.worker("worker-1") as one, pulsar.worker("worker-2") as two:
        runs = [Run(engine, "doubled", number) for number in range(TASKS)]
        for run in runs:
            await run.ask()
        await one.post("drain")
        done = {(await engine.next(WorkflowTaskCompleted)).workflow_id for _ in runs}
        assert done == {run.id for run in runs}
        await one.until(0)
        for run in (more := [Run(engine, "doubled", number) for number in range(TASKS)]):
            await run.ask()
        found = [await engine.next_message(WorkflowTaskCompleted) for _ in more]
        assert {message.emitter for message, _ in found} == {"worker-2"}
        await two.post("drain")
        await two.until(0)
        await Run(engine, "doubled", 1).ask()
        await one.post("resume")
        message, _ = await engine.next_message(WorkflowTaskCompleted)
        assert message.emitter == "worker-1"
