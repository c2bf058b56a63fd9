"""The timer service: stores timers, publishes what they fire when they are due.

Firing is at least once and idempotent; none fires early, late ones are never dropped. One loop timer stands
for the next due time, so sleeping runs cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.gathering import Gathering
from perdure_runtime.poison import FailureCounts, Intake, for_ever, log
from perdure_runtime.ports import RECEIVE_MAX, Delivery, Ports
from perdure_schemas import topics
from perdure_schemas.messages import CancelTimer, Message, ScheduleTimer

SHARD = 0
"""Embedded there is one owner, hence one shard."""
FIRE_BATCH = 500
SLEEP_MAX_S = 3_600.0
"""Wall clocks are set: look again at least every hour."""
LOOK_AFTER_S = 1.0
"""After something was stored that is not due before the next look: who owned the shard until now may have stored what
is. A look reads the minutes around now: one for every timer of a busy cluster would cost more than the timer."""


class TimerService:
    """The only writer of its shard."""

    def __init__(self, ports: Ports, namespace: str, *, pause_seconds: float = 0.0) -> None:
        """`pause_seconds`: while much comes, it gathers for so long, and what is due in one minute is stored together.
        A timer that is due within that time is late by as much; what is due later is not."""
        self._gathering = Gathering(pause_seconds, RECEIVE_MAX)
        self._ports = ports
        self._namespace = namespace
        self._publisher = ports.broker.publisher()
        self._intake: Intake | None = None
        self._changed = asyncio.Event()
        self._next_look = 0
        """When it looks for what is due, if nothing is stored that is due sooner; epoch ms."""
        self._soon: asyncio.TimerHandle | None = None
        """Ends the sleep within LOOK_AFTER_S."""
        self._writing = asyncio.Lock()  # a timer put while others fire must not be removed with them
        self._failures = FailureCounts()

    async def run(self) -> None:
        """Consume and fire until canceled."""
        consumer = await self._ports.broker.subscribe(self._namespace, [topics.TIMERS], "timers", "failover")
        self._intake = Intake(consumer, self._publisher, self._namespace)
        firing = asyncio.get_running_loop().create_task(for_ever(self._fire_and_sleep))
        try:
            await for_ever(self._take)
        finally:
            firing.cancel()
            await consumer.close()

    # -- scheduling --------------------------------------------------------------------------------

    async def _take(self) -> None:
        assert self._intake is not None
        await self._gathering.pause()
        await self._intake.take(self._store)

    async def _store(self, batch: Sequence[Delivery]) -> None:
        """Store what is scheduled, remove what is canceled; of one timer the last word counts."""
        assert self._intake is not None
        self._gathering.took(len(batch))
        wanted: dict[str, ScheduleTimer | CancelTimer] = {}
        for delivery in batch:
            body = delivery.message.body
            match body:
                case ScheduleTimer() | CancelTimer():
                    wanted[body.timer_id] = body
                case _:
                    raise TypeError(f"{type(body).__name__} is no message of the timer service")
        timers = [timer for timer in wanted.values() if isinstance(timer, ScheduleTimer)]
        gone = [timer for timer in wanted.values() if isinstance(timer, CancelTimer)]
        async with self._writing:
            try:
                if timers:
                    await self._ports.timers.put(self._namespace, SHARD, timers)
                if gone:
                    await self._ports.timers.cancel(self._namespace, SHARD, gone)
            finally:  # of a batch that fails some may be stored
                self._look(at_once=bool(gone) or any(timer.due_at < self._next_look for timer in timers))
        await self._intake.ack(batch)

    def _look(self, *, at_once: bool) -> None:
        """A cancel may change what is next, and nudges a service whose clock was set (perdure.testing)."""
        if at_once:
            self._changed.set()
        elif self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._changed.set)

    # -- firing ------------------------------------------------------------------------------------

    async def _fire_and_sleep(self) -> None:
        async with self._writing:
            self._changed.clear()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            next_due, now = await self._fire(), self._ports.clock.now()
            latest = now + int(SLEEP_MAX_S * 1000)
            self._next_look = latest if next_due is None else min(latest, max(now, next_due))
            delay = (self._next_look - now) / 1000
        try:
            await asyncio.wait_for(self._changed.wait(), delay)
        except TimeoutError:
            pass

    async def _fire(self) -> int | None:
        """Fire what is due; returns when the next one is."""
        timers, now = self._ports.timers, self._ports.clock.now()
        while due := await timers.due(self._namespace, SHARD, now, FIRE_BATCH):
            try:
                await self._publisher.publish([self._fired(timer, now) for timer in due])
            except StorageUnavailable:
                raise
            except Exception:
                due = await self._fire_singly(due, now)
            await timers.remove(self._namespace, SHARD, [timer.timer_id for timer in due])
        return await timers.next_due(self._namespace, SHARD)

    async def _fire_singly(self, due: Sequence[ScheduleTimer], now: int) -> list[ScheduleTimer]:
        """One of a batch cannot be published: it must not hold up the others. Returns those that are done with.

        Raises:
            Exception: of one that is to be tried again; those that were fired, are fired again.
        """
        done: list[ScheduleTimer] = []
        problem: Exception | None = None
        for timer in due:
            try:
                await self._publisher.publish([self._fired(timer, now)])
            except StorageUnavailable:
                raise
            except Exception as error:
                if not self._failures.exhausted(timer.timer_id):
                    problem = error
                    continue
                await self._bury(timer, error)
            done.append(timer)
        if problem is not None:
            await self._ports.timers.remove(self._namespace, SHARD, [timer.timer_id for timer in done])
            raise problem
        return done

    async def _bury(self, timer: ScheduleTimer, error: Exception) -> None:
        """It will never be published where it should: kept where people look."""
        self._failures.forget(timer.timer_id)
        extra = {"action": "timer_buried", "timer_id": timer.timer_id, "topic": timer.target.topic}
        log.error("a timer that is due cannot be published", extra=extra, exc_info=error)
        key, at = timer.timer_id, timer.due_at
        letter = Message(id=timer.message_id, namespace=self._namespace, key=key, at=at, body=timer, emitter="timers")
        await self._publisher.publish([(topics.dead_letters(topics.TIMERS), letter)])

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
