"""Answers a client as engines do, by a script: so that lost answers, refusals and late ends can be had at will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from perdure import Client
from perdure._client.backend import PortsBackend
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Delivery
from perdure_schemas import topics
from perdure_schemas.common import Payload
from perdure_schemas.messages import Body, Message, RunResult

Script: TypeAlias = Callable[[Message], Iterable[Body]]
"""The answers to one message; each answers it by causation, unless it is the end of a run."""


def end(workflow_id: str, run_id: str, value: bytes = b"1", **more: Any) -> RunResult:
    more.setdefault("status", "completed")
    return RunResult(workflow_id=workflow_id, run_id=run_id, result=Payload("json", value), **more)


class EngineDouble:
    """Consumes both engines' topics; `seen` is all it got."""

    def __init__(self, script: Script) -> None:
        self.ports = memory_ports(SystemClock())
        self.seen: list[Message] = []
        self._script = script
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EngineDouble:
        wanted = [topics.WORKFLOW_ENGINE, topics.TASK_ENGINE]
        consumer = await self.ports.broker.subscribe("default", wanted, "double", "failover")

        async def run() -> None:
            publisher = self.ports.broker.publisher()
            while True:
                deliveries = await consumer.receive()
                for delivery in deliveries:
                    assert isinstance(delivery, Delivery)
                    await publisher.publish(self._answers(delivery.message))
                await consumer.ack(deliveries)

        self._running = asyncio.create_task(run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        if not self._running.cancelled():
            self._running.result()

    def _answers(self, message: Message) -> list[tuple[str, Message]]:
        self.seen.append(message)
        answers = []
        for number, body in enumerate(self._script(message)):
            causation = None if isinstance(body, RunResult) and body.status != "not-found" else message.id
            answer = Message(
                id=f"{message.id}-{number}-{len(self.seen)}",
                namespace="default",
                key="",
                at=message.at,
                body=body,
                causation_id=causation,
            )
            answers.append((topics.inbox(message.emitter), answer))
        return answers

    def client(self) -> Client:
        backend = PortsBackend("default")
        backend.use(self.ports.broker, self.ports.read_model, self.ports.store, blobs=self.ports.blobs)
        return Client(backend)

    def bodies(self, kind: type[Body]) -> list[Any]:
        return [message.body for message in self.seen if isinstance(message.body, kind)]
