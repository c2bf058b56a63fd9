"""A run that cannot be committed, or not published, holds up no other one, and ends in sight: stuck or buried."""

from __future__ import annotations

from typing import Any

import pytest

from perdure_runtime import poison
from perdure_runtime.errors import MessageTooLarge
from perdure_runtime.ports import Delivery
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_runtime.workflow_round import later_ms
from perdure_schemas import topics
from perdure_schemas.common import NULL
from perdure_schemas.messages import Message, RunChanged, RunWorkflowTask, StartWorkflow
from tests.runtime.parts import NAMESPACE, World, hooked

pytestmark = pytest.mark.asyncio
GUILTY, INNOCENT = "guilty", "innocent"


@pytest.fixture(autouse=True)
def no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits for the end of an outage waits longer than the test."""
    monkeypatch.setattr(poison, "OUTAGE_DELAY_MS", 60_000)


async def send_starts(world: World) -> None:
    """In one batch, so that one round takes both."""
    now = world.ports.clock.now()
    starts = [
        Message(
            id=f"start-{id}",
            namespace=NAMESPACE,
            key=id,
            at=now,
            body=StartWorkflow(workflow_id=id, run_id=f"{id}-run", name="order", args=NULL),
        )
        for id in (GUILTY, INNOCENT)
    ]
    await world.ports.broker.publisher().publish([(topics.WORKFLOW_ENGINE, start) for start in starts])


async def test_a_turn_no_worker_can_be_asked_for_makes_its_run_stuck_and_holds_up_no_other() -> None:
    world = World()

    async def refuse(call: str, args: tuple[Any, ...]) -> None:
        for _, message in args[0] if call == "publish" else ():
            if isinstance(message.body, RunWorkflowTask) and message.body.workflow_id == GUILTY:
                raise MessageTooLarge("2 MB")

    changes = await world.open(topics.WORKFLOW_EVENTS)
    turns = await world.open(topics.workflow_run("order", None))
    async with world.running(WorkflowEngine(hooked(world.ports, "broker", refuse), NAMESPACE, "one").run()):
        await send_starts(world)
        assert (await turns.body(RunWorkflowTask)).workflow_id == INNOCENT
        changed = await changes.body(RunChanged)
        while (changed.workflow_id, changed.status) != (GUILTY, "stuck"):
            changed = await changes.body(RunChanged)
    assert changed.last_error == "MessageTooLarge: the turn cannot be sent to a worker: 2 MB"


@pytest.mark.parametrize("port", ["broker", "store"])
async def test_another_failure_buries_the_message_and_holds_up_no_other(port: str) -> None:
    world = World()

    async def fail(call: str, args: tuple[Any, ...]) -> None:
        if call == "publish" and any(
            isinstance(message.body, RunChanged) and message.body.workflow_id == GUILTY for _, message in args[0]
        ):
            raise MessageTooLarge("2 MB")
        if call == "commit" and args[0].key.workflow_id == GUILTY:
            raise RuntimeError("a broken row")

    buried = await world.open(topics.dead_letters(topics.WORKFLOW_ENGINE))
    changes = await world.open(topics.WORKFLOW_EVENTS)
    async with world.running(WorkflowEngine(hooked(world.ports, port, fail), NAMESPACE, "one").run()):
        await send_starts(world)
        assert (await changes.body(RunChanged)).workflow_id == INNOCENT
        found = await buried.next()
    assert isinstance(found, Delivery)
    assert found.message.id == f"start-{GUILTY}"


async def test_what_comes_too_early_looks_again_less_often_the_older_it_is() -> None:
    assert [later_ms(age_ms) for age_ms in (-5_000, 0, 1_000, 4_000, 20_000, 10**9)] == [50, 50, 50, 200, 1_000, 1_000]
