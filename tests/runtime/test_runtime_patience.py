"""What the workflow engine has recorded it publishes though broker or store falter, and though nothing comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RECEIVE_MAX, Consumer, Ports
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_runtime.workflow_round import PUBLISH_AGAIN_SECONDS
from perdure_schemas import topics
from perdure_schemas.blobs import Blob, blob_of, made_of, reference
from perdure_schemas.common import NULL, Completion, Parent, Payload, WaitsFor
from perdure_schemas.messages import (
    ChildOutcome,
    RunChanged,
    RunWorkflowTask,
    StartWorkflow,
    WaitForResult,
    WorkflowTaskCompleted,
)
from tests.runtime.parts import NAMESPACE, PATIENCE_S, Reader, World, hooked


class AcknowledgedElsewhere:
    """A consumer whose messages another replica acknowledges meanwhile: nothing of it comes again."""

    def __init__(self, inner: Consumer) -> None:
        self._inner = inner
        self.close = inner.close
        self.handed_back = 0

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Any]:
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


@pytest.mark.parametrize("failing", ["keep", "lend", "both"])
def test_a_recorded_outcome_is_sent_though_the_store_of_its_value_falters(failing: str) -> None:
    """To be the run's own it is put there; to be lent it is read from there."""
    failures = ["put", "get"] if failing == "both" else [{"keep": "put", "lend": "get"}[failing]] * 2

    async def scenario() -> None:
        world, left = World(), list(failures)

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if left and name == left[0] and args[1].run_id:
                del left[0]
                raise StorageUnavailable("down")

        broker: Any = Broker(world.ports.broker)
        ports: Ports = replace(hooked(world.ports, "blobs", before), broker=broker)
        turns = await world.open(topics.workflow_run("order"))
        sent = await world.open(topics.WORKFLOW_ENGINE)
        blob = made_of("b", b"large")
        await ports.blobs.put(NAMESPACE, blob, b"large")
        parent = Parent(workflow_id="p", run_id="p", command_id="c", generation=0)
        start = StartWorkflow(workflow_id="w", run_id="r", name="order", args=NULL, parent=parent)
        async with world.running(WorkflowEngine(ports, NAMESPACE, "e").run()):
            await world.send(topics.WORKFLOW_ENGINE, "w", start)
            asked = await turns.body(RunWorkflowTask)
            await world.send(topics.WORKFLOW_ENGINE, "w", completed(asked, reference("json", blob)))
            data = await lent(world, sent, blob)
        assert not left
        assert data == b"large"
        assert broker.consumers[0].handed_back == 0

    asyncio.run(scenario())


def completed(asked: RunWorkflowTask, result: Payload) -> WorkflowTaskCompleted:
    return WorkflowTaskCompleted(
        workflow_id=asked.workflow_id, run_id=asked.run_id, workflow_task_id=asked.workflow_task_id,
        generation=asked.generation, committed=asked.committed, base=asked.base, base_hash=asked.base_hash,
        hashes=asked.hashes, commands=[], waits_for=WaitsFor(),
        completion=Completion(status="completed", result=result),
    )  # fmt: skip


async def lent(world: World, sent: Reader, blob: Blob) -> bytes | None:
    """What the parent is sent, once it is."""
    outcome = await sent.body(ChildOutcome)
    found = None if outcome.result is None else blob_of(outcome.result)
    assert found is not None
    assert not found.run_id
    assert found.sha256 == blob.sha256
    return await world.ports.blobs.get(NAMESPACE, found)


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
