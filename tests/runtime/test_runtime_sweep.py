"""Runs nobody works on are looked at when a worker says that it is there."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine.requests import WAITS_FOR_WORKER
from perdure_runtime.ports import Delivery, Routing
from perdure_runtime.sweep import OVERDUE_MS, Sweep, _is_overdue
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import NULL, Failure
from perdure_schemas.events import RunStatus
from perdure_schemas.messages import (
    MoveRun,
    RunChanged,
    RunWorkflowTask,
    StartWorkflow,
    TimerFired,
    WorkerHello,
    WorkflowTaskFailed,
)
from tests.runtime.parts import NAMESPACE, World

pytestmark = pytest.mark.asyncio


def hello(worker: str, build: str = "", workflow: str = "order") -> WorkerHello:
    return WorkerHello(worker=worker, build=build, workflows=[workflow], tasks=[], slots=1)


def run(
    id: str,
    status: RunStatus,
    *,
    name: str = "order",
    age_ms: int = 0,
    waits_for: str = "",
    build: str | None = None,
    last_error: str = "",
) -> RunChanged:
    changed_at = World().ports.clock.now() - age_ms
    return RunChanged(
        workflow_id=id,
        run_id=f"{id}-run",
        name=name,
        version=1,
        status=status,
        generation=0,
        started_at=changed_at,
        changed_at=changed_at,
        waits_for=waits_for,
        build=build,
        last_error=last_error,
    )


async def led_to(world: World, runs: list[RunChanged], *hellos: WorkerHello) -> list[TimerFired | MoveRun]:
    """What the workflow engine gets after these greetings."""
    last = run("last", "stuck", name="other")
    await world.ports.read_model.apply([(NAMESPACE, each) for each in [*runs, last]])
    messages = await world.open(topics.WORKFLOW_ENGINE)
    async with world.running(Sweep(world.ports, NAMESPACE).run()):
        for each in hellos:
            await world.send(topics.WORKER_HELLO, each.worker, each)
        await world.send(topics.WORKER_HELLO, "last", hello("last", workflow="other"))
        found: list[TimerFired | MoveRun] = []
        while not found or found[-1].workflow_id != "last":
            delivery = await messages.next()
            assert isinstance(delivery, Delivery)
            assert isinstance(delivery.message.body, TimerFired | MoveRun)
            found.append(delivery.message.body)
    return found[:-1]


async def looked_at(world: World, runs: list[RunChanged], *hellos: WorkerHello) -> list[str]:
    """Workflow ids that were looked at after these greetings."""
    return [body.workflow_id for body in await led_to(world, runs, *hellos) if isinstance(body, TimerFired)]


async def rescued(world: World, runs: list[RunChanged], *hellos: WorkerHello) -> list[str]:
    """Workflow ids that are to move to build b2, if it can replay them."""
    moves = [body for body in await led_to(world, runs, *hellos) if isinstance(body, MoveRun)]
    assert all(move.rescue and move.build == "b2" for move in moves)
    return [move.workflow_id for move in moves]


async def current(world: World, build: str | None) -> None:
    await world.ports.routing.put(NAMESPACE, "order", Routing(current=build))


STUCK = [
    run("old", "stuck", build="b1"),
    run("new", "stuck", build="b2"),
    run("free", "stuck"),
    run("fine", "running", build="b1"),
]


async def test_stuck_runs_of_other_builds_are_rescued_by_a_worker_of_the_current_one() -> None:
    world = World()
    await current(world, "b2")
    again = [hello("w2", "b2")] * 3
    assert await rescued(world, STUCK, hello("w1", "b1"), hello("w2", "b2"), *again) == ["old"]


@pytest.mark.parametrize("build", ["b1", "b3", None])
async def test_a_worker_of_another_build_rescues_nothing(build: str | None) -> None:
    world = World()
    await current(world, build)
    assert await rescued(world, STUCK, hello("w2", "b2")) == []


async def test_stuck_runs_are_rescued_when_their_workflow_gets_another_build() -> None:
    world = World()
    assert await rescued(world, STUCK, hello("w2", "b2")) == []
    sweep = Sweep(world.ports, NAMESPACE)
    messages = await world.open(topics.WORKFLOW_ENGINE)
    async with world.running(sweep.run()):
        await world.send(topics.WORKER_HELLO, "w2", hello("w2", "b2"))
        assert (await messages.body(TimerFired)).workflow_id
        await current(world, "b2")
        await world.send(topics.WORKER_HELLO, "w2", hello("w2", "b2"))
        assert (await messages.body(MoveRun)).workflow_id == "old"


async def test_a_run_that_got_stuck_beside_the_current_build_is_rescued_later() -> None:
    world = World()
    await current(world, "b2")
    aged = [run("fresh", "stuck", build="b1"), run("aged", "stuck", build="b1", age_ms=OVERDUE_MS + 1_000)]
    sweep = Sweep(world.ports, NAMESPACE)
    messages = await world.open(topics.WORKFLOW_ENGINE)
    await world.ports.read_model.apply([(NAMESPACE, run("free", "stuck"))])
    async with world.running(sweep.run()):
        for worker, build in (("w2", "b2"), ("w3", "b3")):  # when the second one is heard, the first one is done
            await world.send(topics.WORKER_HELLO, worker, hello(worker, build))
            assert (await messages.body(TimerFired)).workflow_id == "free"
        await world.ports.read_model.apply([(NAMESPACE, each) for each in aged])
        sweep._swept.clear()  # a minute later
        await world.send(topics.WORKER_HELLO, "w2", hello("w2", "b2"))
        assert (await messages.body(MoveRun)).workflow_id == "aged"


async def test_stuck_runs_are_tried_when_a_worker_comes() -> None:
    runs = [run("a", "stuck"), run("b", "running"), run("c", "completed"), run("d", "stuck", build="b7")]
    found = await looked_at(World(), runs, hello("w1"), hello("w1"), hello("w2", "b7"))
    assert sorted(found) == ["a", "a", "d"]  # w1 once, w2 once; d can run on the build of w2 alone


async def test_what_kills_workers_is_not_tried_because_a_worker_came() -> None:
    """It would kill that one, too, and the next."""
    runs = [
        run("deadly", "stuck", last_error="WorkerDied: 3 workers died"),
        run("b", "stuck", last_error="KeyError: 1"),
    ]
    assert await looked_at(World(), runs, hello("w1"), hello("w2")) == ["b", "b"]


async def test_overdue_turns_are_asked_for_again() -> None:
    runs = [
        run("fresh", "running", waits_for=WAITS_FOR_WORKER),
        run("overdue", "running", waits_for=WAITS_FOR_WORKER, age_ms=OVERDUE_MS + 1_000),
        run("asleep", "running", waits_for="timer", age_ms=OVERDUE_MS + 1_000),
        run("paused", "paused", age_ms=OVERDUE_MS + 1_000),
    ]
    assert await looked_at(World(), runs, hello("w1"), hello("w1")) == ["overdue"]


async def test_a_run_no_worker_takes_is_looked_at_ever_more_rarely() -> None:
    minutes = [age for age in range(200) if _is_overdue(age * 60_000, 60_000)]
    assert minutes == [2, 4, 8, 16, 32, 64, 128]


async def test_a_stuck_run_gets_its_turn_when_a_worker_comes() -> None:
    world = World()
    turns = await world.open(topics.workflow_run("order"))
    events = await world.open(topics.WORKFLOW_EVENTS)
    async with world.running(WorkflowEngine(world.ports, NAMESPACE, "e").run(), Sweep(world.ports, NAMESPACE).run()):
        await world.send(
            topics.WORKFLOW_ENGINE, "w", StartWorkflow(workflow_id="w", run_id="r", name="order", args=NULL)
        )
        asked = await turns.body(RunWorkflowTask)
        while not asked.committed:  # on the committed start
            asked = await turns.body(RunWorkflowTask)
        await world.send(
            topics.WORKFLOW_ENGINE,
            "w",
            WorkflowTaskFailed(
                workflow_id="w",
                run_id="r",
                workflow_task_id=asked.workflow_task_id,
                base=asked.base,
                base_hash=asked.base_hash,
                generation=0,
                attempt=1,
                kind="bug",
                failure=Failure(name="KeyError", message=""),
            ),
        )
        changed = await events.body(RunChanged)
        assert (changed.status, changed.waits_for) == ("running", WAITS_FOR_WORKER)
        changed = await events.body(RunChanged)
        assert changed.status == "stuck"
        await world.ports.read_model.apply([(NAMESPACE, changed)])
        await world.send(topics.WORKER_HELLO, "w1", hello("w1"))
        again = await turns.body(RunWorkflowTask)
        assert again.attempt == 0
        assert again.base == asked.base + 1
