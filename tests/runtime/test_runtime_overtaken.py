"""A replica whose view another one has left behind learns so before it refuses, or hands back, what comes to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from perdure import Channel, query, workflow
from perdure.worker import Worker
from perdure_runtime import workflow_decider
from perdure_runtime.clock import SystemClock
from perdure_runtime.poison import Intake
from perdure_runtime.ports import Delivery
from perdure_runtime.workflow_driver import Rounds, WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import NULL, Address, Parent, Payload, Query
from perdure_schemas.messages import (
    Body,
    ChildOutcome,
    CommandReply,
    ControlRun,
    Message,
    QueryResult,
    QueryRun,
    RunWorkflowTask,
    SendSignal,
    StartReply,
    StartWorkflow,
)
from tests.runtime.parts import NAMESPACE, World
from tests.runtime.test_runtime_patience import completed
from tests.runtime.test_runtime_vacant import KEY


@workflow
class Waits:
    go: Channel[str] = Channel()

    async def run(self) -> str:
        return await self.go.receive()

    @query
    def status(self) -> str:
        return "waiting"


SENT_AT = SystemClock().now()
"""Of all messages: what several replicas get is the same."""


class Replica:
    """One that gets what a test gives it; what it hands back comes to it again, as a key does."""

    def __init__(self, world: World) -> None:
        publisher = world.ports.broker.publisher()
        self.rounds = Rounds(world.ports, Intake(self, publisher, NAMESPACE), NAMESPACE, "overtaken")  # type: ignore[arg-type]

    def take(self, id: str, body: Body) -> None:
        self.take_all({id: body})

    def take_all(self, bodies: Mapping[str, Body]) -> None:
        """By the ids of their messages; together."""
        messages = [Message(id=id, namespace=NAMESPACE, key=KEY.workflow_id, at=SENT_AT, body=body)
                    for id, body in bodies.items()]  # fmt: skip
        self.rounds.take([Delivery(topic=topics.WORKFLOW_ENGINE, message=each, redeliveries=0) for each in messages])

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Nobody else wants them."""

    async def nack(self, deliveries: Sequence[Any], delay_ms: int) -> None:
        asyncio.get_running_loop().call_later(delay_ms / 1000, self.rounds.take, deliveries)


def start(run_id: str, parent: Parent | None = None) -> StartWorkflow:
    return StartWorkflow(workflow_id=KEY.workflow_id, run_id=run_id, name="Waits", args=Payload("json", b"[]"),
                         parent=parent, reply_topic="" if parent else "replies")  # fmt: skip


def test_the_view_of_a_purged_run_is_not_taken_for_the_next_run_s() -> None:
    """Versions begin again after a purge: both runs were at their first."""

    async def scenario() -> None:
        world = World()
        store, replica, replies = world.ports.store, Replica(world), await world.open("replies")
        replica.take("s1", start("r1"))
        assert (await replies.body(StartReply)).status == "ok"
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "other").run()):
            end = ControlRun(workflow_id=KEY.workflow_id, action="terminate", reply_topic="replies")
            await world.send(topics.WORKFLOW_ENGINE, KEY.workflow_id, end)
            assert (await replies.body(CommandReply)).status == "ok"
            assert await store.purge(KEY, "r1", (await store.head(KEY)).version, 60_000)
            await world.send(topics.WORKFLOW_ENGINE, KEY.workflow_id, start("r2"))
            assert (await replies.body(StartReply)).status == "ok"
        assert (await store.head(KEY)).version == 1
        replica.take(
            "s2",
            SendSignal(
                workflow_id=KEY.workflow_id, run_id="r2", channel="go", payload=NULL, sender="s", number=1,
                reply_topic="replies",
            ),
        )  # fmt: skip
        assert (await replies.body(CommandReply)).status == "ok"

    asyncio.run(scenario())


def test_what_waits_for_a_turn_that_another_replica_has_recorded_does_not_wait() -> None:
    async def scenario() -> None:
        world = World()
        store, replica = world.ports.store, Replica(world)
        replies, answers = await world.open("replies"), await world.open("answers")
        replica.take("s", start("r"))
        assert (await replies.body(StartReply)).status == "ok"  # without a turn: no worker is there
        worker = Worker(world.ports.broker, [Waits], namespace=NAMESPACE)
        async with world.running(WorkflowEngine(world.ports, NAMESPACE, "other").run()):
            working = asyncio.create_task(worker.run())
            async with asyncio.timeout(20):
                while (await store.head(KEY)).version < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            asked = Query(query_id="q", name="status", args=Payload("json", b"[]"), reply_to=Address("answers", ""))
            replica.take("q", QueryRun(workflow_id=KEY.workflow_id, query=asked))
            assert (await answers.body(QueryResult)).status == "ok"
            worker.drain()
            await working

    asyncio.run(scenario())


def test_a_turn_of_a_run_that_another_replica_began_too_is_published_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other may have died before it did: whoever acknowledges the turn publishes what it did."""
    monkeypatch.setattr(workflow_decider, "START_HOLD_MAX_MS", 600_000)  # its start stays in the buffer

    async def scenario() -> None:
        world = World()
        behind, other = Replica(world), Replica(world)
        replies, turns = await world.open("replies"), await world.open(topics.workflow_run("Waits"))
        sent = await world.open(topics.WORKFLOW_ENGINE)
        behind.take("s1", start("r1"))
        end = ControlRun(workflow_id=KEY.workflow_id, action="terminate", reply_topic="replies")
        behind.take("e", end)
        assert (await replies.body(CommandReply)).status == "ok"
        second = start("r2", Parent(workflow_id="p", run_id="p", command_id="c", generation=0))
        behind.take_all({"e": end, "s2": second})  # who is asked of the first run loads it
        while (asked := await turns.body(RunWorkflowTask)).run_id != "r2":
            pass
        turn = completed(asked, NULL)
        other.take_all({"e": end, "s2": second, "t": turn})
        assert (await sent.body(ChildOutcome)).command_id == "c"
        behind.take("t", turn)
        assert (await sent.body(ChildOutcome)).command_id == "c"

    asyncio.run(scenario())
