"""The timer service: stores timers, publishes what they fire when they are due.

Firing is at least once and idempotent; none fires early, late ones are never dropped. One loop timer stands
for the next due time, so sleeping runs cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.poison import OUTAGE_DELAY_MS
from perdure_runtime.ports import Consumer, Delivery, Ports, Undeliverable
from perdure_schemas import topics
from perdure_schemas.messages import CancelTimer, Message, ScheduleTimer

log = logging.getLogger("perdure.timers")

SHARD = 0
"""Embedded there is one owner, hence one shard."""
FIRE_BATCH = 500
SLEEP_MAX_S = 3_600.0
"""Wall clocks are set: look again at least every hour."""


class TimerService:
    """The only writer of its shard."""

    def __init__(self, ports: Ports, namespace: str) -> None:
        self._ports = ports
        self._namespace = namespace
        self._publisher = ports.broker.publisher()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()  # a timer put while others fire must not be removed with them

    async def run(self) -> None:
        """Consume and fire until canceled."""
        consumer = await self._ports.broker.subscribe(self._namespace, [topics.TIMERS], "timers", "failover")
        firing = asyncio.get_running_loop().create_task(self._fire_for_ever())
        try:
            while True:
                await self._take(consumer, await consumer.receive())
        finally:
            firing.cancel()
            await consumer.close()

    async def _take(self, consumer: Consumer, batch: Sequence[Delivery | Undeliverable]) -> None:
        wanted: dict[str, ScheduleTimer] = {}
        gone: list[str] = []
        for delivery in batch:
            body = delivery.message.body if isinstance(delivery, Delivery) else None
            if isinstance(body, ScheduleTimer):
                wanted[body.timer_id] = body
            elif isinstance(body, CancelTimer):
                wanted.pop(body.timer_id, None)
                gone.append(body.timer_id)
        try:
            async with self._writing:
                if wanted:
                    await self._ports.timers.put(self._namespace, SHARD, list(wanted.values()))
                if gone:
                    await self._ports.timers.remove(self._namespace, SHARD, gone)
            await consumer.ack(batch)
        except StorageUnavailable as error:
            log.warning("timer store unavailable", extra={"action": "timers_outage", "error": str(error)})
            await consumer.nack(batch, OUTAGE_DELAY_MS)
        self._changed.set()

    async def _fire_for_ever(self) -> None:
        while True:
            try:
                self._changed.clear()
                async with self._writing:
                    next_due = await self._fire()
                await self._sleep(next_due)
            except StorageUnavailable as error:
                log.warning("cannot fire timers", extra={"action": "fire_outage", "error": str(error)})
                await asyncio.sleep(OUTAGE_DELAY_MS / 1000)

    async def _sleep(self, next_due: int | None) -> None:
        delay = SLEEP_MAX_S
        if next_due is not None:
            delay = min(delay, max(0.0, (next_due - self._ports.clock.now()) / 1000))
        try:
            await asyncio.wait_for(self._changed.wait(), delay)
        except TimeoutError:
            pass

    async def _fire(self) -> int | None:
        """Fire what is due; returns when the next one is."""
        timers, now = self._ports.timers, self._ports.clock.now()
        while due := await timers.due(self._namespace, SHARD, now, FIRE_BATCH):
            await self._publisher.publish([self._fired(timer, now) for timer in due])
            await timers.remove(self._namespace, SHARD, [timer.timer_id for timer in due])
        return await timers.next_due(self._namespace, SHARD)

    def _fired(self, timer: ScheduleTimer, now: int) -> tuple[str, Message]:
        message = Message(
            id=timer.message_id,
            namespace=self._namespace,
            key=timer.target.key,
            at=max(now, timer.due_at),
            body=timer.fires,
            emitter="timers",
        )
        return timer.target.topic, message
