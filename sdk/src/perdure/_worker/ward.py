"""Where a delivery that two workers have died of gets its last try: alone, so that its third death is its own doing.

From the moment it is admitted nothing else begins, and it begins when no other user code runs; what comes meanwhile is
handed back. So whoever kills the worker then is the suspect itself, and what is healthy does not die a third time,
whatever it shared its first two workers with. Others wait only so long: if the suspect could not begin by then, or runs
on, they begin beside it, and its death no longer counts (`Consumer.spare`), since they may be the ones who kill.
After each suspect who had to make room gets a turn: then others begin, and the next suspect waits until they have
ended. So nobody waits for more than one of them, however many there are, and each is alone all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from perdure._worker.notices import ids_of
from perdure_runtime.ports import Clock, Consumer, Delivery, Undeliverable
from perdure_schemas.messages import RunTask, RunWorkflowTask

log = logging.getLogger("perdure.worker")

DEATHS_MAX = 3
"""A delivery that took its worker with it so often is not tried again: it would take the next one."""
HAND_BACK_MS = 100
"""Before what had to make room is delivered again. The one try is over soon, or another worker takes the rest."""
ALONE_SECONDS_MIN = 10.0
ALONE_SECONDS_MAX = 600.0
"""How long others make room: for as long as its message has been under way. It has killed twice in that time, so a slow
killer kills again within it; and what runs for long without harm does not keep a worker to itself for ever."""
TURN_SECONDS = 0.5
"""Between two suspects, so long what made room for the first may begin: it is delivered again within HAND_BACK_MS, and
what follows from it, a task from its workflow's turn, a little later."""
LOOK_SECONDS = 0.01
"""Between two looks whether the worker is quiet; only while somebody waits for it."""

Handle = Callable[[list[Delivery]], None]


class Ward:
    """One per worker."""

    def __init__(self, clock: Clock, quiet: Callable[[], bool]) -> None:
        """`quiet`: whether nothing that was admitted is unanswered or still runs."""
        self._clock = clock
        self._quiet = quiet
        self._loop = asyncio.get_running_loop()
        self._inside: Delivery | None = None
        self._consumer: Consumer | None = None
        """Of who is inside."""
        self._until = 0.0
        """When others need no longer make room for it."""
        self._made_room = False
        """Whether anything but suspects was handed back since the last turn of the others."""
        self._turn_until = 0.0
        """Until then no suspect gets in."""
        self._entering: asyncio.Queue[tuple[Delivery, float, Handle]] = asyncio.Queue()
        self._spared: set[Delivery | Undeliverable] = set()
        """Those whose last try is not alone any more."""

    async def admit(self, deliveries: list[Delivery], consumer: Consumer, handle: Handle) -> None:
        """Give `handle` what may be handled now, and a suspect once it is alone. The rest is handed back."""
        if self._inside is None and not any(map(_suspect, deliveries)):
            handle(deliveries)
            return
        if self._inside is not None and self._loop.time() >= self._until:
            await self._spare(self._inside)
        admitted = [each for each in deliveries if each.deaths >= DEATHS_MAX]  # they are answered without being run
        waiting = [each for each in deliveries if each.deaths < DEATHS_MAX]
        if self._inside is None:
            suspect = next((each for each in waiting if _suspect(each)), None)
            if suspect is None or self._loop.time() < self._turn_until:
                admitted = [each for each in deliveries if not _suspect(each)]
                waiting = [each for each in deliveries if _suspect(each)]
            else:
                waiting.remove(suspect)
                self._enter(suspect, consumer, handle)
        if waiting:
            self._made_room = self._made_room or not all(map(_suspect, waiting))
            await consumer.nack(waiting, HAND_BACK_MS)
        if admitted:
            handle(admitted)

    def to_begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those whose death counts."""
        return [each for each in deliveries if each not in self._spared] if self._spared else deliveries

    def leave(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        """They are answered."""
        if self._inside is not None and self._inside in deliveries:
            self._over()
        if self._spared:
            self._spared.difference_update(deliveries)

    async def run(self) -> None:
        """Let suspects in, one after the other."""
        while True:
            suspect, alone_seconds, handle = await self._entering.get()
            while self._inside is suspect and not self._quiet():
                await asyncio.sleep(LOOK_SECONDS)
                if self._loop.time() >= self._until:
                    await self._spare(suspect)
            if self._inside is suspect:
                self._until = self._loop.time() + alone_seconds
            handle([suspect])

    def _enter(self, suspect: Delivery, consumer: Consumer, handle: Handle) -> None:
        what, ids = _named(suspect)
        log.warning(
            "%d workers died while they ran %s: it is tried once more, alone, to tell whether it kills them; "
            "other work of this worker waits for it", suspect.deaths, what,
            extra={"action": "last_try", "topic": suspect.topic, **ids},
        )  # fmt: skip
        self._inside, self._consumer = suspect, consumer
        age_seconds = (self._clock.now() - suspect.message.at) / 1000
        alone_seconds = min(max(age_seconds, ALONE_SECONDS_MIN), ALONE_SECONDS_MAX)
        self._until = self._loop.time() + alone_seconds
        self._entering.put_nowait((suspect, alone_seconds, handle))

    async def _spare(self, suspect: Delivery) -> None:
        """Let others in beside it."""
        assert self._consumer is not None
        self._spared.add(suspect)
        spared = self._consumer.spare([suspect])
        if spared is not None:
            await spared
        if self._inside is suspect:
            self._over()

    def _over(self) -> None:
        """It is alone no more: the turn of those who made room for it."""
        self._inside = None
        if self._made_room:
            self._made_room, self._turn_until = False, self._loop.time() + TURN_SECONDS


def _suspect(delivery: Delivery) -> bool:
    return delivery.deaths == DEATHS_MAX - 1


def _named(delivery: Delivery) -> tuple[str, dict[str, str]]:
    """What user code runs on, for people; and the ids of it, for programs."""
    body = delivery.message.body
    if isinstance(body, RunTask):
        run = f" of run {body.workflow.workflow_id}" if body.workflow is not None else ""
        return f"attempt {body.attempt} of task {body.name}{run}", {"task": body.name, **ids_of(body)}
    if isinstance(body, RunWorkflowTask):
        return f"a turn of {body.name}, run {body.workflow_id}", {"workflow_id": body.workflow_id}
    return f"a message of {delivery.topic}", {}
