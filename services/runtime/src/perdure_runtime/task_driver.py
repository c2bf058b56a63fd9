"""The task engine's shell: hold, load, decide, save, publish, acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import assert_never, cast, get_args
from weakref import WeakValueDictionary

import msgspec

from perdure_core.task_engine import state as records
from perdure_core.task_engine.authority import judge
from perdure_core.task_engine.decide import decide
from perdure_core.task_engine.decisions import Ask, Authority, Discard, Effect, Emit, Header, Hold, Save
from perdure_runtime.poison import FAILED_DELAY_MS, Intake, for_ever
from perdure_runtime.ports import Delivery, Ports, RunKey, Store
from perdure_runtime.task_holds import HOLD_MAX_S, Holds
from perdure_schemas import topics
from perdure_schemas.common import WorkflowRef
from perdure_schemas.events import CommandSettled
from perdure_schemas.messages import TaskMessage

TASK_BODIES = get_args(TaskMessage)
AT_ONCE = 64
"""Reads and writes of the store at a time. A fan-out brings thousands that outlast their hold together: asked
for all at once, a store answers none of them in time, and all of them come again."""


class TaskEngine:
    """One replica; the compare-and-set of each record decides between them."""

    def __init__(self, ports: Ports, namespace: str, owner: str, *, hold_seconds: float = HOLD_MAX_S) -> None:
        self._ports = ports
        self._namespace = namespace
        self._publisher = ports.broker.publisher()
        self._intake: Intake | None = None
        self._holds = Holds(lambda key, deliveries: self._begin(key, deliveries, waited=True), seconds=hold_seconds)
        self._busy: dict[str, list[tuple[Delivery, bool]]] = {}
        """By task id: deliveries to come, each with whether it was held for as long as one may be."""
        self._work: set[asyncio.Task[None]] = set()
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._asked: WeakValueDictionary[WorkflowRef, asyncio.Lock] = WeakValueDictionary()
        """By run: its history is asked by one task at a time, since serial reads of one row hinder each other."""

    async def run(self) -> None:
        """Consume until canceled."""
        consumer = await self._ports.broker.subscribe(
            self._namespace, [topics.TASK_ENGINE], "task-engine", "key-shared"
        )
        self._intake = Intake(consumer, self._publisher, self._namespace)
        try:
            await for_ever(self._take)
        finally:
            self._holds.close()
            for task in list(self._work):
                task.cancel()
            await consumer.close()

    async def _take(self) -> None:
        assert self._intake is not None
        done: list[Delivery] = []
        for delivery in await self._intake.receive():
            key = delivery.message.key
            met = None if key in self._busy else self._holds.meet(delivery)
            if met is None:
                self._begin(key, [delivery], waited=False)
            else:
                done += met
        if done:
            await self._intake.ack(done)

    # -- one task at a time ------------------------------------------------------------------------

    def _begin(self, key: str, deliveries: list[Delivery], *, waited: bool) -> None:
        """Handle them behind what is handled of that task already."""
        queue = self._busy.get(key)
        more = [(delivery, waited) for delivery in deliveries]
        if queue is not None:
            queue.extend(more)
            return
        self._busy[key] = more
        task = asyncio.get_running_loop().create_task(self._handle_all(key))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _handle_all(self, key: str) -> None:
        queue = self._busy[key]
        try:
            while queue:
                delivery, waited = queue.pop(0)
                await self._handle(key, delivery, waited)
        finally:
            self._busy.pop(key, None)

    async def _handle(self, key: str, delivery: Delivery, waited: bool) -> None:
        assert self._intake is not None
        await self._intake.handle([delivery], lambda _: self._decide(key, delivery, waited))

    async def _decide(self, key: str, delivery: Delivery, waited: bool) -> None:
        assert self._intake is not None
        message, body = delivery.message, _task_message(delivery)
        async with self._limit:
            version, data = await self._ports.tasks.load(self._namespace, key)
        record = None if data is None else records.decode(data)
        header = Header(id=message.id, at=message.at, namespace=self._namespace, waited=waited)
        decision = decide(record, body, header, None)
        if isinstance(decision, Ask):
            async with self._asked.setdefault(decision.workflow, asyncio.Lock()), self._limit:
                authority = await read_authority(self._ports.store, self._namespace, decision, key)
            decision = decide(record, body, header, authority)
        match decision:
            case Hold():
                self._holds.keep(key, delivery)
                return
            case Save():
                if not await self._save(key, version, decision):
                    await self._intake.consumer.nack([delivery], FAILED_DELAY_MS)
                    return
                self._begin(key, self._holds.release(key), waited=True)  # there is a record for them now
            case Emit() | Discard():
                await self._publish(decision.effects)
            case Ask():
                raise AssertionError("the history was read already")
            case _:
                assert_never(decision)
        await self._intake.ack([delivery])

    async def _save(self, key: str, version: int, decision: Save) -> bool:
        await self._publish(decision.before)
        data = records.encode(decision.record)
        async with self._limit:
            saved = await self._ports.tasks.save(self._namespace, key, version, data, ttl_ms=decision.ttl_ms)
        if not saved:
            return False
        await self._publish(decision.effects)
        return True

    async def _publish(self, effects: Sequence[Effect]) -> None:
        if effects:
            namespace = self._namespace
            batch = [(topic, msgspec.structs.replace(message, namespace=namespace)) for topic, message in effects]
            await self._publisher.publish(batch)


def _task_message(delivery: Delivery) -> TaskMessage:
    """Raises TypeError: what came has no business here."""
    body = delivery.message.body
    if isinstance(body, TASK_BODIES):
        return cast(TaskMessage, body)
    raise TypeError(f"{type(body).__name__} is no message of the task engine")


async def read_authority(store: Store, namespace: str, ask: Ask, task_id: str) -> Authority:
    """What the run's history says of a task (protocol rule 22: the history is the authority)."""
    key, run_id = RunKey(namespace, ask.workflow.workflow_id), ask.workflow.run_id
    verdict = judge(task_id, await store.task_marks(key, run_id, task_id), ask.generation)
    if not (ask.wants_event and verdict.settled_seq):
        return verdict
    seq = verdict.settled_seq
    found = await store.history(key, run_id, seq - 1, seq, 1)
    event = found[0].event if found else None
    return msgspec.structs.replace(verdict, settled=event if isinstance(event, CommandSettled) else None)
