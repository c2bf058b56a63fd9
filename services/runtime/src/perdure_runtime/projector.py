"""Keeps the read models up to date from the engines' events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from perdure_runtime.poison import Intake, for_ever
from perdure_runtime.ports import Delivery, Ports
from perdure_schemas import topics
from perdure_schemas.messages import RunChanged, RunPurged, TaskChanged

BEHIND_FROM = 200
"""A batch of so many messages is nearly all that one can be: more wait already."""

MUCH_FROM = 30
"""Changes per second. A run of one task has two or three; people who look on cannot follow ten such runs a second."""


class _Rate:
    """How much changes, by the second."""

    def __init__(self) -> None:
        self._began = 0.0
        self._counts = [0, 0]
        """Of the second before, and of this one so far."""

    def add(self, count: int) -> None:
        self._move_on()
        self._counts[1] += count

    def much(self) -> bool:
        self._move_on()
        return max(self._counts) >= MUCH_FROM

    def _move_on(self) -> None:
        passed = monotonic() - self._began
        if passed >= 1.0:
            self._counts = [self._counts[1] if passed < 2.0 else 0, 0]
            self._began = monotonic()


class Projector:
    """One owner per partition; a read model ignores what it has, so repetitions change nothing."""

    def __init__(self, ports: Ports, namespace: str, *, pause_seconds: float = 0.0) -> None:
        """`pause_seconds`: while much changes, what comes gathers for so long. Of several changes of a run the last is
        written then, and those of different runs together; while little does, each is written at once."""
        self._ports = ports
        self._namespace = namespace
        self._pause_seconds = pause_seconds
        self._intake: Intake | None = None
        self._behind = False
        self._rate = _Rate()

    async def run(self) -> None:
        """Consume until canceled."""
        broker, names = self._ports.broker, [topics.WORKFLOW_EVENTS, topics.TASK_EVENTS]
        consumer = await broker.subscribe(self._namespace, names, "projector", "failover")
        self._intake = Intake(consumer, broker.publisher(), self._namespace)
        try:
            await for_ever(self._take)
        finally:
            await consumer.close()

    async def _take(self) -> None:
        assert self._intake is not None
        if self._pause_seconds and not self._behind and self._rate.much():
            await asyncio.sleep(self._pause_seconds)
        await self._intake.take(self._apply)

    async def _apply(self, batch: Sequence[Delivery]) -> None:
        assert self._intake is not None
        self._behind = len(batch) >= BEHIND_FROM
        self._rate.add(len(batch))
        changes: list[tuple[str, RunChanged | TaskChanged]] = []
        purged: list[RunPurged] = []
        for delivery in batch:
            body = delivery.message.body
            match body:
                case RunChanged() | TaskChanged():
                    changes.append((self._namespace, body))
                case RunPurged():
                    purged.append(body)
                case _:
                    raise TypeError(f"{type(body).__name__} is no event")
        if changes:
            await self._ports.read_model.apply(changes)
        for body in purged:
            await self._ports.read_model.forget(self._namespace, body.workflow_id, body.run_id)
        await self._intake.ack(batch)
