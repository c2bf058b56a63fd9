"""Runs nobody works on are looked at when a worker says that it is there."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine.requests import WAITS_FOR_WORKER
from perdure_runtime.sweep import OVERDUE_MS, Sweep, _is_overdue
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import NULL, Failure
from perdure_schemas.events import RunStatus
from perdure_schemas.messages import (
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
    )


async def looked_at(world: World, runs: list[RunChanged], *hellos: WorkerHello) -> list[str]:
    """Workflow ids that were looked at after these greetings."""
    last = run("last", "stuck", name="other")
    await world.ports.read_model.apply([(NAMESPACE, each) for each in [*runs, last]])
    looks = await world.open(topics.WORKFLOW_ENGINE)
    async with world.running(Sweep(world.ports, NAMESPACE).run()):
        for each in hellos:
            await world.send(topics.WORKER_HELLO, each.worker, each)
        await world.send(topics.WORKER_HELLO, "last", hello("last", workflow="other"))
        found: list[str] = []
        while "last" not in found:
            found.append((await looks.body(TimerFired)).workflow_id)
    return found[:-1]


async def test_stuck_runs_are_tried_when_a_worker_comes() -> None:
    runs = [run("a", "stuck"), run("b", "running"), run("c", "completed"), run("d", "stuck", build="b7")]
    found = await looked_at(World(), runs, hello("w1"), hello("w1"), hello("w2", "b7"))
    assert sorted(found) == ["a", "a", "d"]  # w1 once, w2 once; d can run on the build of w2 alone


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
