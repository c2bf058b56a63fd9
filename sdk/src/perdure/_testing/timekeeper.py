"""Who moves the clock of a test environment, and tells those who wait in vain."""

from __future__ import annotations

import asyncio
import math

from perdure._client.requests import Question
from perdure._testing.journal import Journal
from perdure._testing.virtual import VirtualClock
from perdure.client import Client, open_questions
from perdure.errors import PerdureError
from perdure.failures import exception_from_failure
from perdure_core.task_engine.deadlines import next_deadline
from perdure_core.task_engine.state import TaskRecord, decode
from perdure_runtime.ports import Ports
from perdure_runtime.timer_driver import SHARD
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import CancelTimer, Message, RunChanged, ScheduleTimer, TaskTimerFired, TimerFired

CALM_PASSES = 40
"""Passes of the event loop without any message moving, after which nothing moves by itself: engines in this process
take a handful of passes for a step."""
LOOK_SECONDS = 0.002
"""A call that waits for a run's end sends nothing: look now and then whether one does."""
SILENT_LOOKS = 1_000
"""In a row in which nothing moves and nothing is due, two seconds at least: a test may act a moment of real time after
it began to wait. Counted in looks: each takes longer where the machine is busy, and so do the test's own tasks."""
FOR_EVER_MS = 2**53
TIMERS_MAX = 10_000
"""Open timers looked at for the next one that somebody waits for."""


class RunStuck(PerdureError):
    """A run waits for its code to be mended: it raised what no workflow means to raise, or was changed."""


class NothingComes(PerdureError):
    """What the test waits for never comes: nothing is under way or due, and nobody sends anything. It says what for."""


class Timekeeper:
    """Moves the clock whenever nothing but time can move the runs, and somebody waits for that."""

    def __init__(self, clock: VirtualClock, *, ports: Ports, journal: Journal, client: Client, namespace: str) -> None:
        self._clock = clock
        self._ports = ports
        self._journal = journal
        self._client = client
        self._namespace = namespace
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._silent_looks = 0
        self._seen: tuple[int, list[Question]] = (0, [])
        """At the last look: news, and questions."""

    async def until(self, moment_ms: int) -> None:
        """Let time pass until then."""
        reached = asyncio.get_running_loop().create_future()
        self._sleepers.append((moment_ms, reached))
        self._journal.moved.set()
        await reached

    async def keep(self) -> None:
        """Work until canceled."""
        while True:
            await self._calm()
            due = await self._next_due()
            if due is not None and due <= self._clock.now():
                await self._journal.wait(LOOK_SECONDS)  # being fired
            elif self._journal.tasks.linger():
                await self._journal.wait(LOOK_SECONDS)
            elif due is not None and due <= self._horizon():
                await self._advance(due)
            elif self._sleepers:
                await self._advance(min(moment for moment, _ in self._sleepers))
                self._rouse()
            else:
                self._tell_of_stuck()
                self._tell_of_silence()
                await self._journal.wait(LOOK_SECONDS)

    async def _calm(self) -> None:
        """Until no message moves, and none is on its way; and whoever waits for somebody real has been answered, or
        real time has brought his next time-out: else he waited for ever for who never answers."""
        journal = self._journal
        passes = 0
        while passes < CALM_PASSES:
            moves = journal.moves
            await asyncio.sleep(0)
            if journal.busy():
                await journal.wait()
                passes = 0
            elif (left := journal.tasks.left()) > 0:
                await journal.wait(left if left < math.inf else None)
                passes = 0
            else:
                passes = passes + 1 if journal.moves == moves else 0

    async def _next_due(self) -> int | None:
        """When time next brings something. While only calls wait: but for the engine's own housekeeping."""
        timers = await self._ports.timers.due(self._namespace, SHARD, FOR_EVER_MS, TIMERS_MAX)
        now, asleep = self._clock.now(), bool(self._sleepers)
        of_tasks = min((due for lived in self._journal.tasks if (due := lived.next_due()) is not None), default=None)
        for timer in timers:
            if of_tasks is not None and of_tasks <= timer.due_at:
                break
            if asleep or timer.due_at <= now:
                return timer.due_at
            record = await self._task(timer)
            if record is not None and self._in_vain(record):
                return None
            if not (_housekeeping(timer) or (record is not None and next_deadline(record)[1] == "watch")):
                return timer.due_at
        return of_tasks

    async def _task(self, timer: ScheduleTimer) -> TaskRecord | None:
        """What it is to look at."""
        if not isinstance(timer.fires, TaskTimerFired):
            return None
        _, record = await self._ports.tasks.load(self._namespace, timer.fires.task_id)
        return None if record is None else decode(record)

    def _in_vain(self, record: TaskRecord) -> bool:
        """Whether a time-out would hide from a call that waits that its task was neither given nor mocked."""
        if next_deadline(record)[1] not in ("attempt", "total"):
            return False
        return any(self._journal.lacks(record.task, question.keys) for question in open_questions(self._client))

    def _horizon(self) -> int:
        """How far the clock may go."""
        if self._sleepers:
            return min(moment for moment, _ in self._sleepers)
        self._tell_of_stuck()
        return FOR_EVER_MS if open_questions(self._client) else 0

    async def _advance(self, moment_ms: int) -> None:
        if moment_ms > self._clock.now():
            passed = moment_ms - self._clock.now()
            self._clock.advance_to(moment_ms)
            for lived in self._journal.tasks:
                lived.jumped(passed)
            nudge = Message(
                id=f"nudge-{moment_ms}", namespace=self._namespace, key="", at=moment_ms, body=CancelTimer(timer_id="")
            )
            await self._ports.broker.publisher().publish([(topics.TIMERS, nudge)])  # the service looks at the clock

    def _rouse(self) -> None:
        now = self._clock.now()
        for moment, reached in self._sleepers:
            if moment <= now and not reached.done():
                reached.set_result(None)
        self._sleepers = [(moment, reached) for moment, reached in self._sleepers if not reached.done()]

    def _tell_of_stuck(self) -> None:
        """A stuck run never ends by itself: whoever waits for its end, or that of a run it is a child of, is told."""
        for change in self._journal.stuck.values():
            keys = self._journal.lineage(change)
            for question in open_questions(self._client):
                if not keys.isdisjoint(question.keys):
                    question.answer.set_exception(_stuck_error(change, self._journal.failures.get(change.run_id)))

    def _tell_of_silence(self) -> None:
        """Called when nothing is due. Whoever waits is told, once that has lasted. What a real task waits for may be
        real, too."""
        journal = self._journal
        seen = (journal.news, open_questions(self._client))
        working = journal.delegated or journal.tasks.real()
        silent = seen == self._seen and bool(seen[1]) and not working
        self._silent_looks = self._silent_looks + 1 if silent else 0
        self._seen = seen
        if self._silent_looks >= SILENT_LOOKS:
            for question in seen[1]:
                question.answer.set_exception(NothingComes(self._journal.told_of_waits(question.keys)))


def _housekeeping(timer: ScheduleTimer) -> bool:
    """Retention, and looking again at a stuck run: nobody waits for these."""
    return isinstance(timer.fires, TimerFired) and timer.fires.kind in ("retention", "turn")


def _stuck_error(change: RunChanged, failure: Failure | None) -> RunStuck:
    stack = "" if failure is None else failure.stack
    error = RunStuck(f"run {change.workflow_id!r} of {change.name} is stuck: {change.last_error}\n{stack}".rstrip())
    if failure is not None:
        error.__cause__ = exception_from_failure(failure)
    return error
