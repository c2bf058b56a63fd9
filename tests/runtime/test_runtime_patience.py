"""What the workflow engine has recorded it publishes though the broker falters, and though nothing comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Consumer, Ports
from perdure_runtime.workflow_driver import PUBLISH_AGAIN_SECONDS, WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import NULL
from perdure_schemas.messages import RunChanged, RunWorkflowTask, StartWorkflow, WaitForResult
from tests.runtime.parts import NAMESPACE, PATIENCE_S, World, hooked


class AcknowledgedElsewhere:
    """A consumer whose messages another replica acknowledges meanwhile: nothing of it comes again."""

    def __init__(self, inner: Consumer) -> None:
        self._inner = inner
        self.close = inner.close
        self.handed_back = 0

    async def receive(self, limit: int = 256) -> Sequence[Any]:
        batch = await self._inner.receive(limit)
        await self._inner.ack(batch)
        return batch

    async def ack(self, deliveries: Sequence[Any]) -> None:
        """Too late."""

    async def nack(self, deliveries: Sequence[Any], delay_ms: int) -> None:
        self.handed_back += len(deliveries)


class Broker:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.publisher = inner.publisher
        self.consumers: list[AcknowledgedElsewhere] = []

    async def subscribe(self, *args: Any) -> Any:
        self.consumers.append(AcknowledgedElsewhere(await self._inner.subscribe(*args)))
        return self.consumers[-1]


@pytest.mark.parametrize("failures", range(len(PUBLISH_AGAIN_SECONDS) + 1))
def test_a_recorded_start_is_published_by_the_replica_that_recorded_it(failures: int) -> None:
    async def scenario() -> None:
        world, left = World(), failures

        async def before(name: str, args: tuple[Any, ...]) -> None:
            nonlocal left
            recorded = name == "publish" and any(isinstance(message.body, RunChanged) for _, message in args[0])
            if recorded and left:
                left -= 1
                raise StorageUnavailable("down")

        broker: Any = Broker(hooked(world.ports, "broker", before).broker)
        ports: Ports = replace(world.ports, broker=broker)
        turns = await world.open(topics.workflow_run("order"))
        changes = await world.open(topics.WORKFLOW_EVENTS)
        start = StartWorkflow(workflow_id="w", run_id="r", name="order", args=NULL)
        async with world.running(WorkflowEngine(ports, NAMESPACE, "e").run()):
            await world.send(topics.WORKFLOW_ENGINE, "w", start)
            while not (await turns.body(RunWorkflowTask)).committed:
                pass  # the first is asked for before the start is recorded
            assert (await changes.body(RunChanged)).run_id == "r"
        assert left == 0
        assert broker.consumers[0].handed_back == 0

    asyncio.run(scenario())


def test_a_recorded_start_that_nobody_published_goes_on_when_any_message_comes() -> None:
    async def scenario() -> None:
        world = World()
        given_up = asyncio.Event()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "publish" and any(isinstance(message.body, RunChanged) for _, message in args[0]):
                given_up.set()
                await asyncio.Event().wait()  # until it dies

        broker: Any = Broker(hooked(world.ports, "broker", before).broker)
        async with world.running(WorkflowEngine(replace(world.ports, broker=broker), NAMESPACE, "dies").run()):
            start = StartWorkflow(workflow_id="w", run_id="r", name="order", args=NULL)
            await world.send(topics.WORKFLOW_ENGINE, "w", start)
            await asyncio.wait_for(given_up.wait(), PATIENCE_S)
        turns = await world.open(topics.workflow_run("order"))
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "lives").run()):
            await world.send(topics.WORKFLOW_ENGINE, "w", WaitForResult(workflow_id="w", run_id="r", reply_topic="i"))
            while not (await turns.body(RunWorkflowTask)).committed:
                pass

    asyncio.run(scenario())
