"""No message and no error ends a service, or holds up what has nothing to do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure_runtime import poison
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_runtime.ports import Delivery, Ports, RunFilter, Undeliverable
from perdure_runtime.projector import Projector
from perdure_runtime.task_driver import TaskEngine
from perdure_runtime.timer_driver import TimerService
from perdure_schemas import topics
from perdure_schemas.common import NULL, Address, TaskOptions
from perdure_schemas.messages import (
    CancelTimer,
    DispatchTask,
    RunChanged,
    RunTask,
    ScheduleTimer,
    TimerFired,
    WorkerHello,
)
from tests.runtime.parts import NAMESPACE, PATIENCE_S, World, hooked

SERVICES: dict[str, Callable[[Ports], Coroutine[Any, Any, None]]] = {
    topics.TASK_ENGINE: lambda ports: TaskEngine(ports, NAMESPACE, "one").run(),
    topics.TIMERS: lambda ports: TimerService(ports, NAMESPACE).run(),
    topics.WORKFLOW_EVENTS: lambda ports: Projector(ports, NAMESPACE).run(),
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are over soon."""
    monkeypatch.setattr(poison, "OUTAGE_DELAY_MS", 10)


def dispatch(name: str) -> DispatchTask:
    return DispatchTask(task_id=name, name=name, args=NULL, options=TaskOptions(), answer_to=[], dispatched=False)


def timer(id: str, due_at: int = 0) -> ScheduleTimer:
    fires = TimerFired(workflow_id=id, run_id="r", kind="command", due_at=due_at)
    return ScheduleTimer(timer_id=id, due_at=due_at, target=Address("target", id), fires=fires, message_id=f"{id}!")


def run_changed(id: str) -> RunChanged:
    return RunChanged(
        workflow_id=id,
        run_id="r",
        name="n",
        version=1,
        status="running",
        generation=0,
        started_at=1,
        changed_at=1,
    )


@pytest.mark.parametrize("topic", SERVICES)
def test_what_cannot_be_read_goes_to_the_dead_letters(topic: str) -> None:
    async def scenario() -> None:
        world = World()
        letters = await world.open(topics.dead_letters(topic))
        async with world.running(SERVICES[topic](world.ports)):
            await world.send_bytes(topic, b"\xff\xff")
            letter = await letters.next()
            assert isinstance(letter, Undeliverable)
            assert letter.data == b"\xff\xff"

    asyncio.run(scenario())


@pytest.mark.parametrize("topic", SERVICES)
def test_what_does_not_belong_there_goes_to_the_dead_letters(topic: str) -> None:
    async def scenario() -> None:
        world = World()
        letters = await world.open(topics.dead_letters(topic))
        async with world.running(SERVICES[topic](world.ports)):
            await world.send(topic, "k", WorkerHello(worker="w", build="", workflows=[], tasks=[], slots=1))
            letter = await letters.next()
            assert isinstance(letter, Delivery)

    asyncio.run(scenario())


def test_the_read_model_s_error_on_one_event_leaves_the_others() -> None:
    async def scenario() -> None:
        world = World()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "apply" and any(change.workflow_id == "bad" for _, change in args[0]):
                raise ValueError("not this one")

        letters = await world.open(topics.dead_letters(topics.WORKFLOW_EVENTS))
        for id in ("a", "bad", "b"):
            await world.send(topics.WORKFLOW_EVENTS, id, run_changed(id))
        async with world.running(Projector(hooked(world.ports, "read_model", before), NAMESPACE).run()):
            assert (await letters.body(RunChanged)).workflow_id == "bad"
            page = await world.ports.read_model.list_runs(NAMESPACE, RunFilter(), 10, None)
            assert sorted(run.workflow_id for run in page.runs) == ["a", "b"]

    asyncio.run(scenario())


def test_what_comes_while_the_projector_pauses_is_applied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure_runtime.gathering.MUCH_FROM", 1)

    async def scenario() -> None:
        world, batches = World(), list[list[str]]()
        first, rest = asyncio.Event(), asyncio.Event()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "apply":
                batches.append([change.workflow_id for _, change in args[0]])
                (rest if first.is_set() else first).set()

        projector = Projector(hooked(world.ports, "read_model", before), NAMESPACE, pause_seconds=0.3)
        async with world.running(projector.run()):
            await world.send(topics.WORKFLOW_EVENTS, "a", run_changed("a"))
            await first.wait()
            await world.send_all(topics.WORKFLOW_EVENTS, "b", *(run_changed(id) for id in "bcd"))
            await rest.wait()
        assert batches == [["a"], ["b", "c", "d"]]

    asyncio.run(scenario())


def test_while_little_changes_the_projector_does_not_pause() -> None:
    async def scenario() -> None:
        world, seen = World(), asyncio.Queue[str]()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "apply":
                seen.put_nowait(args[0][0][1].workflow_id)

        projector = Projector(hooked(world.ports, "read_model", before), NAMESPACE, pause_seconds=60)
        async with asyncio.timeout(PATIENCE_S), world.running(projector.run()):
            for id in "abc":
                await world.send(topics.WORKFLOW_EVENTS, id, run_changed(id))
                assert await seen.get() == id

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("unforeseen")])
def test_timers_fire_after_an_error(error: Exception) -> None:
    async def scenario() -> None:
        world, broken = World(), [error, error]

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "due" and broken:
                raise broken.pop()

        fired = await world.open("target")
        async with world.running(TimerService(hooked(world.ports, "timers", before), NAMESPACE).run()):
            await world.send(topics.TIMERS, "t", timer("t"))
            assert (await fired.body(TimerFired)).workflow_id == "t"

    asyncio.run(scenario())


def test_a_timer_that_cannot_be_published_holds_up_no_other() -> None:
    async def scenario() -> None:
        world = World()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "publish" and any(topic == "target" and message.key == "bad" for topic, message in args[0]):
                raise MessageTooLarge("over the limit")

        fired = await world.open("target")
        letters = await world.open(topics.dead_letters(topics.TIMERS))
        await world.ports.timers.put(NAMESPACE, 0, [timer("a"), timer("bad"), timer("b")])
        async with world.running(TimerService(hooked(world.ports, "broker", before), NAMESPACE).run()):
            assert {(await fired.body(TimerFired)).workflow_id for _ in range(2)} == {"a", "b"}
            assert (await letters.body(ScheduleTimer)).timer_id == "bad"
        assert await world.ports.timers.next_due(NAMESPACE, 0) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("unforeseen")])
def test_the_task_engine_goes_on_after_an_error(error: Exception) -> None:
    async def scenario() -> None:
        world, broken = World(), [error, error]

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if broken:
                raise broken.pop()

        attempts = await world.open(topics.task_run("one"))
        async with world.running(TaskEngine(hooked(world.ports, "tasks", before), NAMESPACE, "e").run()):
            await world.send(topics.TASK_ENGINE, "one", dispatch("one"))
            assert (await attempts.body(RunTask)).task_id == "one"

    asyncio.run(scenario())


def test_a_poisoned_task_leaves_the_others() -> None:
    async def scenario() -> None:
        world = World()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "load" and args[1] == "bad":
                raise ValueError("its record is damaged")

        letters = await world.open(topics.dead_letters(topics.TASK_ENGINE))
        attempts = await world.open(topics.task_run("good"))
        async with world.running(TaskEngine(hooked(world.ports, "tasks", before), NAMESPACE, "e").run()):
            await world.send(topics.TASK_ENGINE, "bad", dispatch("bad"))
            await world.send(topics.TASK_ENGINE, "good", dispatch("good"))
            assert (await attempts.body(RunTask)).task_id == "good"
            assert (await letters.body(DispatchTask)).task_id == "bad"

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("unforeseen")])
def test_an_error_while_burying_loses_neither_the_letter_nor_the_service(error: Exception) -> None:
    async def scenario() -> None:
        world, broken = World(), [error]

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "publish_raw" and broken:
                raise broken.pop()

        attempts = await world.open(topics.task_run("one"))
        letters = await world.open(topics.dead_letters(topics.TASK_ENGINE))
        async with world.running(TaskEngine(hooked(world.ports, "broker", before), NAMESPACE, "e").run()):
            await world.send_bytes(topics.TASK_ENGINE, b"\xff")
            await world.send(topics.TASK_ENGINE, "one", dispatch("one"))
            assert (await attempts.body(RunTask)).task_id == "one"
            assert isinstance(await letters.next(), Undeliverable)

    asyncio.run(scenario())


async def turns() -> None:
    """Of the loop: all that can be done is done."""
    for _ in range(100):
        await asyncio.sleep(0)


# --- timers ---------------------------------------------------------------------------------------


def test_a_timer_put_while_it_fires_is_not_removed_with_what_fired() -> None:
    """A watch is armed anew under its old id just as it fires."""

    async def scenario() -> None:
        world, firing, gate = World(), asyncio.Event(), asyncio.Event()
        later = world.ports.clock.now() + 3_600_000

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "publish" and args[0][0][0] == "target":
                firing.set()
                await gate.wait()

        await world.ports.timers.put(NAMESPACE, 0, [timer("t")])
        async with world.running(TimerService(hooked(world.ports, "broker", before), NAMESPACE).run()):
            await asyncio.wait_for(firing.wait(), PATIENCE_S)
            await world.send(topics.TIMERS, "t", timer("t", later))
            await turns()  # for a service without the lock to put it
            gate.set()
            await turns()  # to remove what fired
            assert await world.ports.timers.next_due(NAMESPACE, 0) == later

    asyncio.run(scenario())


def test_of_one_timer_the_last_word_counts() -> None:
    async def scenario() -> None:
        world = World()
        later = world.ports.clock.now() + 3_600_000
        await world.send(topics.TIMERS, "t", CancelTimer(timer_id="t"))
        await world.send(topics.TIMERS, "t", timer("t", later))
        await world.send(topics.TIMERS, "u", timer("u", later - 1))
        await world.send(topics.TIMERS, "u", CancelTimer(timer_id="u"))
        async with world.running(TimerService(world.ports, NAMESPACE).run()), asyncio.timeout(PATIENCE_S):
            while await world.ports.timers.next_due(NAMESPACE, 0) != later:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(scenario())
