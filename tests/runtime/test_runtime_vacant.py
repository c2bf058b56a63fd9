"""A workflow id whose current run was purged, while an earlier one is kept: that one's messages are still its own."""

from __future__ import annotations

import asyncio

from perdure_runtime.ports import RunKey, vacant_head
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import Payload
from perdure_schemas.messages import CommandReply, ControlRun, Message, SendSignal, StartReply, StartWorkflow
from tests.runtime.parts import NAMESPACE, Reader, World

KEY = RunKey(NAMESPACE, "w-1")
SIGNAL = SendSignal(
    workflow_id="w-1", channel="c", payload=Payload("json", b"1"), sender="s", number=1, reply_topic="replies"
)


async def start_and_terminate(world: World, replies: Reader, run_id: str, signal: SendSignal | None = None) -> str:
    """Id of the signal's message, if there was one."""
    start = StartWorkflow(
        workflow_id="w-1", run_id=run_id, name="w", args=Payload("json", b"[]"), reply_topic="replies"
    )  # fmt: skip
    await world.send(topics.WORKFLOW_ENGINE, "w-1", start)
    assert (await replies.body(StartReply)).status == "ok"
    sent = "" if signal is None else await world.send(topics.WORKFLOW_ENGINE, "w-1", signal)
    if sent:
        assert (await replies.body(CommandReply)).status == "ok"
    await world.send(
        topics.WORKFLOW_ENGINE, "w-1", ControlRun(workflow_id="w-1", action="terminate", reply_topic="replies")
    )
    assert (await replies.body(CommandReply)).status == "ok"
    return sent


def test_a_signal_of_the_earlier_run_that_comes_again_is_not_recorded_again() -> None:
    async def scenario() -> None:
        world = World()
        store = world.ports.store
        replies = await world.open("replies")
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "a").run()):
            signal = await start_and_terminate(world, replies, "r1", SIGNAL)
            await start_and_terminate(world, replies, "r2")
        recorded = await store.find_cause(KEY, signal)
        assert recorded is not None
        assert recorded[0] == "r1"
        assert await store.purge(KEY, "r2", (await store.head(KEY)).version, 60_000)
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "b").run()):
            again = Message(id=signal, namespace=NAMESPACE, key="w-1", at=world.ports.clock.now(), body=SIGNAL)
            await world.ports.broker.publisher().publish([(topics.WORKFLOW_ENGINE, again)])
            assert (await replies.body(CommandReply)).status == "ok"
        head, history = await store.load(KEY)
        assert (head, [*history]) == (vacant_head(2), [])

    asyncio.run(scenario())
