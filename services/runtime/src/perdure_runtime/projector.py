"""Keeps the read models up to date from the engines' events."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_runtime.gathering import Gathering
from perdure_runtime.poison import Intake, for_ever
from perdure_runtime.ports import Delivery, Ports
from perdure_schemas import topics
from perdure_schemas.messages import RunChanged, RunPurged, TaskChanged

_CHANGES_MAX = 1_000
"""Taken together: as many as a consumer has in store."""


class Projector:
    """One owner per partition; a read model ignores what it has, so repetitions change nothing."""

    def __init__(self, ports: Ports, namespace: str, *, pause_seconds: float = 0.0) -> None:
        """`pause_seconds`: while much changes, what comes gathers for so long. Of several changes of a run the last is
        written then, and those of different runs together; while little does, each is written at once."""
        self._ports = ports
        self._namespace = namespace
        self._gathering = Gathering(pause_seconds, _CHANGES_MAX)
        self._intake: Intake | None = None

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
        await self._gathering.pause()
        await self._intake.take(self._apply, _CHANGES_MAX)

    async def _apply(self, batch: Sequence[Delivery]) -> None:
        assert self._intake is not None
        self._gathering.took(len(batch))
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
