"""The task engine's shell: hold, load, decide, save, publish, acknowledge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import assert_never, get_args

import msgspec

from perdure_core.history import effective
from perdure_core.task_engine import state as records
from perdure_core.task_engine.decide import decide
from perdure_core.task_engine.decisions import (
    Ask,
    Authority,
    Decision,
    Discard,
    Effect,
    Emit,
    Header,
    Hold,
    Save,
)
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.poison import OUTAGE_DELAY_MS, FailureCounts, bury_bytes
from perdure_runtime.ports import Consumer, Delivery, Ports, RunKey, Store, Undeliverable
from perdure_schemas import topics
from perdure_schemas.events import CommandSettled, RunEnded, TurnCommitted
from perdure_schemas.messages import AttemptOutcome, DispatchTask, TaskMessage

log = logging.getLogger("perdure.task_engine")

HOLD_MAX_S = 1.0
"""Protocol rule 23: what is met in memory within a second is never stored."""
LOST_DELAY_MS = 50
TASK_BODIES = get_args(TaskMessage)


class TaskEngine:
    """One replica; the compare-and-set of each record decides between them."""

    def __init__(self, ports: Ports, namespace: str, owner: str) -> None:
        self._ports = ports
        self._namespace = namespace
        self._owner = owner
        self._publisher = ports.broker.publisher()
        self._consumer: Consumer | None = None
        self._held: dict[str, list[Delivery]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._busy: dict[str, list[tuple[Delivery, bool]]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._failures = FailureCounts()

    async def run(self) -> None:
        """Consume until canceled."""
        broker = self._ports.broker
        self._consumer = await broker.subscribe(self._namespace, [topics.TASK_ENGINE], "task-engine", "key-shared")
        try:
            while True:
                await self._take(self._consumer, await self._consumer.receive())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            for task in list(self._work):
                task.cancel()
            await self._consumer.close()

    async def _take(self, consumer: Consumer, batch: Sequence[Delivery | Undeliverable]) -> None:
        met: list[Delivery] = []
        for delivery in batch:
            if isinstance(delivery, Undeliverable):
                await bury_bytes(self._publisher, consumer, self._namespace, delivery)
            elif delivery.message.key in self._busy:
                self._busy[delivery.message.key].append((delivery, False))
            elif not self._meet(delivery, met):
                self._begin(delivery.message.key, [(delivery, False)])
        if met:
            await consumer.ack(met)

    # -- in memory ---------------------------------------------------------------------------------

    def _meet(self, delivery: Delivery, met: list[Delivery]) -> bool:
        """A dispatch and its success meet here: both are done, nothing is stored. False: look at the record."""
        body, key = delivery.message.body, delivery.message.key
        dispatch = isinstance(body, DispatchTask) and body.dispatched and body.workflow is not None
        success = isinstance(body, AttemptOutcome) and body.outcome == "completed" and not body.delegated
        held = self._held.get(key)
        if held is None:
            if dispatch and delivery.redeliveries == 0:
                self._hold(key, delivery)
                return True
            return False
        first = held[0].message.body
        if success and isinstance(first, DispatchTask) and first.workflow is not None and first.dispatched:
            self._timers.pop(key).cancel()
            met.extend(self._held.pop(key))
            met.append(delivery)
            return True
        return False

    def _hold(self, key: str, delivery: Delivery) -> None:
        self._held.setdefault(key, []).append(delivery)
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(HOLD_MAX_S, self._waited, key)

    def _waited(self, key: str) -> None:
        self._timers.pop(key, None)
        waited = [(delivery, True) for delivery in self._held.pop(key, ())]
        if key in self._busy:
            self._busy[key].extend(waited)
        elif waited:
            self._begin(key, waited)

    # -- one task at a time ------------------------------------------------------------------------

    def _begin(self, key: str, work: list[tuple[Delivery, bool]]) -> None:
        self._busy[key] = work
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
        assert self._consumer is not None
        try:
            await self._decide(key, delivery, waited)
        except StorageUnavailable as error:
            log.warning("storage unavailable", extra={"action": "task_outage", "error": str(error)})
            await self._consumer.nack([delivery], OUTAGE_DELAY_MS)
        except UnknownOutcome:
            await self._consumer.nack([delivery], LOST_DELAY_MS)
        except Exception as error:
            await self._failed(delivery, error)

    async def _decide(self, key: str, delivery: Delivery, waited: bool) -> None:
        assert self._consumer is not None
        message, body = delivery.message, delivery.message.body
        if not isinstance(body, TASK_BODIES):
            raise TypeError(f"{type(body).__name__} is no message of the task engine")
        version, data = await self._ports.tasks.load(self._namespace, key)
        record = None if data is None else records.decode(data)
        header = Header(id=message.id, at=message.at, namespace=self._namespace, waited=waited)
        decision: Decision = decide(record, body, header, None)
        if isinstance(decision, Ask):
            run = RunKey(self._namespace, decision.workflow.workflow_id)
            authority = await read_authority(self._ports.store, run, decision.workflow.run_id, key)
            decision = decide(record, body, header, authority)
        match decision:
            case Hold():
                self._hold(key, delivery)
                return
            case Save():
                if not await self._save(key, version, decision):
                    await self._consumer.nack([delivery], LOST_DELAY_MS)
                    return
            case Emit(effects=effects):
                await self._publish(effects)
            case Discard():
                pass
            case Ask():
                raise AssertionError("the history was read already")
            case _:
                assert_never(decision)
        held = self._held.pop(key, [])
        if held:
            self._timers.pop(key).cancel()
            self._busy[key].extend((other, True) for other in held)
        await self._consumer.ack([delivery])

    async def _save(self, key: str, version: int, decision: Save) -> bool:
        await self._publish(decision.before)
        data = records.encode(decision.record)
        if not await self._ports.tasks.save(self._namespace, key, version, data, decision.ttl_ms):
            return False
        await self._publish(decision.effects)
        return True

    async def _publish(self, effects: Sequence[Effect]) -> None:
        if effects:
            namespace = self._namespace
            batch = [(topic, msgspec.structs.replace(message, namespace=namespace)) for topic, message in effects]
            await self._publisher.publish(batch)

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        assert self._consumer is not None
        message = delivery.message
        log.error("message failed", extra={"action": "message_failed", "message_id": message.id}, exc_info=error)
        if not self._failures.exhausted(message.id):
            await self._consumer.nack([delivery], LOST_DELAY_MS)
            return
        self._failures.forget(message.id)
        await self._publisher.publish([(topics.dead_letters(delivery.topic), message)])
        await self._consumer.ack([delivery])


async def read_authority(store: Store, key: RunKey, run_id: str, command_id: str) -> Authority:
    """What the run's history says of a command (protocol rule 22: the history is the authority)."""
    head, history = await store.load(key)
    if head.run_id != run_id:
        return Authority(state="gone")
    issued = False
    for recorded in effective(history):
        event = recorded.event
        if isinstance(event, CommandSettled) and event.command_id == command_id:
            return Authority(state="settled", outcome=event.outcome)
        if isinstance(event, RunEnded) and event.status != "failed":
            return Authority(state="ended")
        if isinstance(event, TurnCommitted):
            issued = issued or any(command.id == command_id for command in event.commands)
    return Authority(state="open" if issued else "gone")
