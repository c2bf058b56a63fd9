"""Keeps the read models up to date from the engines' events."""

from __future__ import annotations

import logging

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.poison import OUTAGE_DELAY_MS
from perdure_runtime.ports import Delivery, Ports
from perdure_schemas import topics
from perdure_schemas.messages import RunChanged, RunPurged, TaskChanged

log = logging.getLogger("perdure.projector")


class Projector:
    """One owner per partition; a read model ignores what it has, so repetitions change nothing."""

    def __init__(self, ports: Ports, namespace: str) -> None:
        self._ports = ports
        self._namespace = namespace

    async def run(self) -> None:
        """Consume until canceled."""
        names = [topics.WORKFLOW_EVENTS, topics.TASK_EVENTS]
        consumer = await self._ports.broker.subscribe(self._namespace, names, "projector", "failover")
        try:
            while True:
                batch = await consumer.receive()
                try:
                    await self._apply([d for d in batch if isinstance(d, Delivery)])
                    await consumer.ack(batch)
                except StorageUnavailable as error:
                    log.warning("read model unavailable", extra={"action": "project_outage", "error": str(error)})
                    await consumer.nack(batch, OUTAGE_DELAY_MS)
        finally:
            await consumer.close()

    async def _apply(self, batch: list[Delivery]) -> None:
        changes: list[tuple[str, RunChanged | TaskChanged]] = []
        for delivery in batch:
            body = delivery.message.body
            if isinstance(body, RunChanged | TaskChanged):
                changes.append((self._namespace, body))
        if changes:
            await self._ports.read_model.apply(changes)
        for delivery in batch:
            body = delivery.message.body
            if isinstance(body, RunPurged):
                await self._ports.read_model.forget(self._namespace, body.workflow_id, body.run_id)
