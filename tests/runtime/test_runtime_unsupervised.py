"""What is over soon is nobody's but its run's; the task engine hears of the rest, and loses nothing for it."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from perdure import Retry, TaskFailed, task, workflow
from perdure._worker import answers
from perdure.worker import Worker
from perdure_runtime import workflow_supervision
from perdure_schemas.messages import AttemptOutcome, DispatchTask, TaskOutcome, TaskStatus
from tests.sdk.semantics.world import Gate, World

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
NEVER_MS = 3_600_000


@task
async def held(name: str) -> str:
    await GATES[name].passed(name)
    return name


@task(retry=Retry(attempts=3, initial=0.01))
async def failing(name: str) -> str:
    raise ValueError(name)


@workflow
async def holding(name: str) -> str:
    return await held(name)


@workflow
async def holding_for_a_time(name: str) -> str:
    return await held.options(total_timeout=600)(name)


@workflow
async def trying(name: str) -> str:
    try:
        return await failing(name)
    except Exception as error:
        return type(error).__name__


@task
async def swelling(text: str) -> str:
    return text * 3


@workflow
async def swollen(size: int) -> str:
    try:
        return await swelling("x" * size)
    except TaskFailed as error:
        return str(error)


class WithoutBlobs(World):
    async def start_worker(self) -> None:
        worker = Worker(self.spy, self._registry)
        self._worker = asyncio.create_task(worker.run())
        await worker.ready.wait()


async def listed(world: World, run_id: str, *statuses: TaskStatus) -> None:
    """Once the one task of the run is listed as one of these."""
    list_tasks = world.ports.read_model.list_tasks
    while not any(task.status in statuses for task in await list_tasks("default", "w", run_id)):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest_asyncio.fixture(autouse=True)
async def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    GATES["x"] = Gate()
    monkeypatch.setattr(answers, "UNTOLD_MS", NEVER_MS)  # a worker takes each task for young


async def test_the_task_engine_does_not_hear_of_what_is_over_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", NEVER_MS)
    GATES["x"].open()
    async with World(held, holding) as world:
        assert await world.client.execute(holding, "x") == "x"
        await world.quiet()
        assert len(world.spy.bodies(TaskOutcome)) == 1
        assert not world.spy.bodies(DispatchTask)
        assert not world.spy.bodies(AttemptOutcome)


async def test_what_fails_is_tried_again_though_nobody_was_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", NEVER_MS)
    async with World(failing, trying) as world:
        assert await world.client.execute(trying, "x") == "TaskFailed"
        assert [outcome.attempt for outcome in world.spy.bodies(AttemptOutcome)] == [1, 2, 3]
        assert not world.spy.bodies(DispatchTask)


async def test_what_cannot_be_sent_fails_though_nobody_was_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without a store of blobs; the arguments are more than half of a message."""
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", NEVER_MS)
    async with WithoutBlobs(swelling, swollen) as world:
        assert "PayloadTooLarge" in await world.client.execute(swollen, 900_000)
        assert not world.spy.bodies(DispatchTask)


async def test_what_waits_for_a_worker_is_listed_and_over_once_its_run_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its worker told the run alone."""
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", 1)
    async with World(held, holding) as world:
        run = await world.client.start(holding, "x", id="w")
        await GATES["x"].reached()
        await listed(world, run.run_id, "queued", "running")  # by its worker, should that be sooner
        GATES["x"].open()
        assert await run.result() == "x"
        await listed(world, run.run_id, "completed")


async def test_what_has_a_time_out_is_supervised_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", NEVER_MS)
    async with World(held, holding_for_a_time) as world:
        run = await world.client.start(holding_for_a_time, "x", id="w")
        await GATES["x"].reached()
        assert len(world.spy.bodies(DispatchTask)) == 1
        GATES["x"].open()
        assert await run.result() == "x"
        await world.quiet()
        assert len(world.spy.bodies(AttemptOutcome)) == 1


async def test_a_worker_that_took_long_tells_the_task_engine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_supervision, "SUPERVISED_AFTER_MS", NEVER_MS)
    monkeypatch.setattr(answers, "UNTOLD_MS", 0)
    GATES["x"].open()
    async with World(held, holding) as world:
        assert await world.client.execute(holding, "x") == "x"
        await world.quiet()
        assert len(world.spy.bodies(AttemptOutcome)) == 1
