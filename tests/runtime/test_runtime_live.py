"""What people do to tasks, with the real engines, a real worker and a real client.

Cancel is told by tests/sdk/semantics too, and the death of worker processes by tests/bad_input.
"""

from __future__ import annotations

import asyncio

import pytest

from perdure import Refused, Retry, RunNotFound, TaskCanceled, current_task, task, workflow
from perdure_runtime import task_holds
from perdure_schemas import topics
from perdure_schemas.events import CommandSettled
from perdure_schemas.messages import CancelTask, DispatchTask, RunTask
from tests.sdk.semantics.world import Gate, World, events

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    GATES.clear()
    SEEN.clear()
    monkeypatch.setattr(task_holds, "HOLD_MAX_S", 0.05)


@task
async def held(name: str) -> str:
    try:
        await GATES[name].passed(name)
    except asyncio.CancelledError:
        SEEN.append(f"{name} canceled")
        raise
    return f"{name} held"


@task(retry=Retry(attempts=5, initial=600))
async def picky(name: str) -> str:
    if name != "good":
        raise ValueError(name)
    return name


@task
async def hand_on(name: str) -> str:
    current_task().delegate()
    GATES[name].tell(current_task().id)
    return ""


@workflow
async def holding(name: str) -> str:
    return await held.options(heartbeat_timeout=60)(name)


@workflow
async def trying(name: str) -> str:
    return await picky.options(timeout=600)(name)


@workflow
async def delegating(name: str) -> str:
    return await hand_on(name)


async def dispatched(world: World) -> str:
    """The id of the one task."""
    while not (found := world.spy.bodies(RunTask)):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return found[0].task_id


async def test_a_person_answers_instead_of_a_running_task() -> None:
    GATES["x"] = Gate()
    async with World(held, holding) as world:
        run = await world.client.start(holding, "x")
        await GATES["x"].reached()
        await world.client.task(await dispatched(world)).complete("by hand")
        assert await run.result() == "by hand"
        (settled,) = events(await run.history(), CommandSettled)
        assert settled.outcome == "completed"
        while not SEEN:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert SEEN == ["x canceled"], "its worker was told that nobody needs it any more"
        await world.quiet()
        assert len(world.spy.bodies(RunTask)) == 1


async def test_a_person_corrects_the_input_of_a_failing_task() -> None:
    async with World(picky, trying) as world:
        run = await world.client.start(trying, "bad")
        handle = world.client.task(await dispatched(world))
        while True:
            try:
                await handle.retry("good")
                break
            except RunNotFound:  # its failure is on its way
                await asyncio.sleep(0.01)
        assert await run.result() == "good"
        assert [run.attempt for run in world.spy.bodies(RunTask)] == [1, 2]


async def test_a_delegated_task_is_completed_from_outside() -> None:
    GATES["x"] = Gate()
    async with World(hand_on, delegating) as world:
        run = await world.client.start(delegating, "x")
        task_id = await GATES["x"].reached()
        await world.client.task(task_id).complete("from outside")
        assert await run.result() == "from outside"


async def test_a_canceled_task_that_is_run_again_is_not_canceled_by_the_same_message() -> None:
    GATES["x"] = Gate()
    async with World(held) as world:
        handle = await world.client.start_task(held.options(heartbeat_timeout=60), "x")
        await GATES["x"].reached()
        await world.send(topics.TASK_ENGINE, CancelTask(task_id=handle.id), handle.id, id="the cancel")
        with pytest.raises(TaskCanceled):
            await handle.result()
        await handle.retry()
        await GATES["x"].reached()
        await world.send(topics.TASK_ENGINE, CancelTask(task_id=handle.id), handle.id, id="the cancel")
        await world.quiet()
        GATES["x"].open()
        assert await handle.result() == "x held"


async def test_who_asks_for_what_is_unknown_or_over_is_told_so() -> None:
    GATES["x"] = Gate()
    GATES["x"].open()
    async with World(held) as world:
        unknown = world.client.task("no such task")
        for asked in (unknown.cancel(), unknown.retry(), unknown.complete(""), unknown.result()):
            with pytest.raises(RunNotFound):
                await asked
        handle = await world.client.start_task(held, "x")
        assert await handle.result() == "x held"
        for asked in (handle.cancel(), handle.retry(), handle.complete("")):
            with pytest.raises(Refused, match="completed"):
                await asked
        assert await handle.result() == "x held"


async def test_a_dispatch_that_comes_again_does_not_run_a_finished_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost acknowledgement, long after."""
    async with World(picky, trying) as world:
        with monkeypatch.context() as patch:
            patch.setattr(task_holds, "HOLD_MAX_S", 3_600)  # the task and its outcome meet, or there is a record
            assert await world.client.execute(trying, "good") == "good"
        (dispatch,) = world.spy.bodies(DispatchTask)
        await world.send(topics.TASK_ENGINE, dispatch, dispatch.task_id, id="again")
        await asyncio.sleep(4 * task_holds.HOLD_MAX_S)
        assert (await world.ports.tasks.load("default", dispatch.task_id))[1] is None
        assert len(world.spy.bodies(RunTask)) == 1
