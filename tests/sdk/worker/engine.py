"""A tiny engine side: what it sends a worker, and what the worker answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import msgspec
import pytest

from perdure.worker import Worker
from perdure_core.history import effective
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.queues import QueueConsumer
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Consumer, Delivery, SubscriptionType
from perdure_schemas import ids, topics
from perdure_schemas.common import Address, Payload, RunOptions, TaskOptions, WorkflowRef
from perdure_schemas.events import CommandSettled, Event, Recorded, Started, TurnCommitted
from perdure_schemas.messages import AttemptOutcome, Body, Message, RunTask, RunWorkflowTask, WorkflowTaskCompleted

T = TypeVar("T")
TO_WORKFLOW = Address(topics.WORKFLOW_ENGINE, "w-1")
TO_TASK = Address(topics.TASK_ENGINE, "t-1")


def json(*values: Any) -> Payload:
    return Payload("json", msgspec.json.encode(values))


def value(payload: Payload | None) -> Any:
    assert payload is not None
    return None if payload.encoding == "null" else msgspec.json.decode(payload.data)


PATIENCE_S = 60.0
"""What never comes fails the test; a process takes 0.3 s to start, and many times that where everybody works."""


class Ahead:
    """How far a loop's time is ahead of the real one. It must not go back: timers would wait for it."""

    seconds = 0.0


def ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """Of the running loop: so that a period ends when the test says so, however long the test itself takes."""
    loop = asyncio.get_running_loop()
    ahead, real = Ahead(), loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + ahead.seconds)
    return ahead


class Engine:
    """Both engines' topics on a memory broker. Takes what arrives in order, per kind of message."""

    def __init__(self) -> None:
        self.ports = memory_ports(SystemClock())
        self.broker = self.ports.broker
        self.publisher = self.broker.publisher()
        self.seen: list[Message] = []
        self._count = count(1)
        self._arrived = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        for topic in (topics.WORKFLOW_ENGINE, topics.TASK_ENGINE, topics.WORKER_HELLO, topics.inbox("client")):
            kind = "exclusive" if topic.startswith("inbox") else "shared"
            consumer = await self.broker.subscribe("default", [topic], "engine", kind)  # type: ignore[arg-type]
            self._readers.append(asyncio.create_task(self._read(consumer)))

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def lose(self, topic: str, mode: SubscriptionType, workers: int) -> None:
        """So many workers take what is there, and are gone without a word."""
        for _ in range(workers):
            worker = await self.broker.subscribe("default", [topic], "workers", mode)
            assert isinstance(worker, QueueConsumer)
            worker.begin([each for each in await worker.receive() if isinstance(each, Delivery)])
            worker.lose()

    async def _read(self, consumer: Consumer) -> None:
        while True:
            batch = [item for item in await consumer.receive() if isinstance(item, Delivery)]
            async with self._arrived:
                self.seen += [item.message for item in batch]
                self._arrived.notify_all()
            await consumer.ack(batch)

    async def send(self, topic: str, body: Body, key: str = "k") -> Message:
        message = Message(id=f"m-{next(self._count)}", namespace="default", key=key, at=1_000, body=body)
        await self.publisher.publish([(topic, message)])
        return message

    async def next(
        self, kind: type[T], where: Callable[[T], bool] = lambda _: True, *, timeout: float = PATIENCE_S
    ) -> T:
        """The next message of that kind, taken out of what was seen."""
        return (await self.next_message(kind, where, timeout=timeout))[1]

    async def next_message(
        self, kind: type[T], where: Callable[[T], bool] = lambda _: True, *, timeout: float = PATIENCE_S
    ) -> tuple[Message, T]:
        async with asyncio.timeout(timeout), self._arrived:
            while True:
                for message in self.seen:
                    if isinstance(message.body, kind) and where(message.body):
                        self.seen.remove(message)
                        return message, message.body
                await self._arrived.wait()

    def has(self, kind: type[Any]) -> bool:
        return any(isinstance(message.body, kind) for message in self.seen)

    async def run_task(self, name: str, *args: Any, **changes: Any) -> RunTask:
        number = next(self._count)
        fields: dict[str, Any] = {
            "task_id": f"t-{number}",
            "attempt_id": f"a-{number}",
            "attempt": 1,
            "name": name,
            "args": json(*args),
            "options": TaskOptions(),
            "answer_to": [TO_WORKFLOW, TO_TASK],
            "workflow": WorkflowRef("w-1", "r-1", "flow"),
        }
        run = RunTask(**{**fields, **changes})
        await self.send(topics.task_run(name), run)
        return run


async def outcome_of(engine: Engine, run: RunTask, *, timeout: float = PATIENCE_S) -> AttemptOutcome:
    return await engine.next(AttemptOutcome, lambda m: m.attempt_id == run.attempt_id, timeout=timeout)


class Run:
    """One run's history as an engine keeps it, and the turns it asks for."""

    def __init__(self, engine: Engine, name: str, *args: Any) -> None:
        self.engine = engine
        self.name = name
        self.id = f"w-{next(engine._count)}"
        self.run_id = f"{self.id}-r"
        self.records: list[Recorded] = []
        self.hashes = [ids.chain_start(self.run_id)]
        self.committed = 0
        self.last: TurnCommitted | None = None
        self.add(Started(run_id=self.run_id, name=name, args=json(*args), options=RunOptions()))

    def add(self, event: Event, cause: str = "") -> None:
        seq = len(self.records) + 1
        cause = cause or f"c-{seq}"
        self.records.append(Recorded(seq=seq, at=1_000 * seq, cause=cause, event=event))
        self.hashes.append(ids.chain_next(self.hashes[-1], type(event).__name__, cause, b""))

    def task(self, **changes: Any) -> RunWorkflowTask:
        last = self.last
        base = len(self.records)
        after = last.base if last is not None else 0
        unfed = [r for r in self.records if r.seq > after and not isinstance(r.event, TurnCommitted)]
        fields: dict[str, Any] = {
            "workflow_task_id": ids.workflow_task_id(self.hashes[base], 0),
            "workflow_id": self.id,
            "run_id": self.run_id,
            "name": self.name,
            "generation": 0,
            "attempt": 1,
            "committed": self.committed,
            "base": base,
            "base_hash": self.hashes[base],
            "hashes": self.hashes[self.committed + 1 : base + 1],
            "previous_hash": "" if last is None else self.hashes[last.base],
            "previous_nonce": "" if last is None else last.nonce,
            "previous_base": after,
            "events": unfed,
        }
        return RunWorkflowTask(**{**fields, **changes})

    async def ask(self, **changes: Any) -> RunWorkflowTask:
        task = self.task(**changes)
        await self.engine.send(topics.workflow_run(self.name), task, key=self.id)
        return task

    async def turn(self, **changes: Any) -> WorkflowTaskCompleted:
        """Ask for a turn, and commit its result."""
        await self.ask(**changes)
        message, done = await self.engine.next_message(WorkflowTaskCompleted, lambda m: m.workflow_id == self.id)
        self.commit(message.id, done)
        return done

    def commit(self, nonce: str, done: WorkflowTaskCompleted) -> None:
        self.last = TurnCommitted(
            workflow_task_id=done.workflow_task_id,
            base=done.base,
            nonce=nonce,
            generation=0,
            commands=done.commands,
            waits_for=done.waits_for,
        )
        self.add(self.last, nonce)
        self.committed = len(self.records)

    def settle(self, command_id: str, result: Any) -> None:
        self.add(CommandSettled(command_id=command_id, outcome="completed", result=_one(result)))

    def in_force(self) -> list[Recorded]:
        return effective(self.records)


def _one(result: Any) -> Payload:
    return Payload("json", msgspec.json.encode(result))


@asynccontextmanager
async def working(*objects: object, **options: Any) -> AsyncIterator[tuple[Engine, Worker]]:
    """An engine, and a worker that is ready. A defect of the worker's own fails the test."""
    engine = Engine()
    await engine.open()
    worker = Worker(engine.broker, objects, worker_id="worker-1", **{"grace_seconds": 1.0, **options})
    running = asyncio.create_task(worker.run())
    try:
        ready = asyncio.create_task(worker.ready.wait())
        await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        yield engine, worker
    finally:
        await worker.drain()
        await running
        await engine.close()
