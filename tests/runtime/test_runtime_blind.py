"""Which starts are decided without a look at the store."""

from __future__ import annotations

import asyncio
import time

import pytest

from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_runtime.workflow_round import START_HOLD_MAX_MS
from perdure_schemas import topics
from perdure_schemas.common import ConflictPolicy, Payload, ReusePolicy
from perdure_schemas.messages import StartReply, StartWorkflow
from tests.runtime.parts import NAMESPACE, World


@pytest.mark.parametrize(("conflict", "reuse"), [("use-existing", "always"), ("fail", "never")])
def test_a_start_whose_sender_expects_the_id_to_be_in_use_is_answered_at_once(
    conflict: ConflictPolicy, reuse: ReusePolicy
) -> None:
    """Also where no worker is there, whose turn would end the wait for the first commit."""

    def start(run_id: str) -> StartWorkflow:
        return StartWorkflow(
            workflow_id="w", run_id=run_id, name="w", args=Payload("json", b"[]"), reply_topic="replies",
            conflict_policy=conflict, reuse_policy=reuse,
        )  # fmt: skip

    async def scenario() -> None:
        world = World()
        replies = await world.open("replies")
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "a").run()):
            await world.send(topics.WORKFLOW_ENGINE, "w", start("r1"))
            await replies.body(StartReply)
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "b").run()):
            began = time.monotonic()
            await world.send(topics.WORKFLOW_ENGINE, "w", start("r2"))
            assert (await replies.body(StartReply)).run_id == "r1"
            assert time.monotonic() - began < START_HOLD_MAX_MS / 1_000 / 2

    asyncio.run(scenario())
