"""Attempts of tasks: from their delivery to their answer. Lives on the messaging loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perdure._worker.answers import Answers
from perdure._worker.execution import Attempt, Ended
from perdure._worker.handover import Handover
from perdure._worker.outbox import Acks, Answer, Outbox, Step
from perdure.context import TaskContext
from perdure.task import Mode, Task
from perdure_runtime.ports import Delivery
from perdure_schemas.common import Failure, Payload
from perdure_schemas.messages import AttemptCancelRequested, RunTask

log = logging.getLogger("perdure.worker")

DEATHS_MAX = 3
"""A delivery that took its worker with it so often is not tried again: it would take the next one."""
HEARTBEATS_PER_TIMEOUT = 4
"""Of those that user code reports, so many are sent per heartbeat time-out: enough that one may be lost."""
HEARTBEAT_SECONDS = 1.0
"""Between heartbeats of an attempt without heartbeat time-out: progress is for people to look at."""
ABANDON_SECONDS = 1.0
"""What an async task may take to clean up after its time-out, before its attempt is answered without it."""
LONG_SECONDS = 1.0
"""An attempt that runs longer tells where it runs, so that a cancel can reach it."""


class Executor(Protocol):
    """Runs user code somewhere, and reports how it ended."""

    def start(self, attempt: Attempt) -> None: ...

    def cancel(self, attempt: Attempt) -> None: ...


class Attempts:
    """What this worker runs, at most `slots` attempts at a time."""

    def __init__(self, tasks: Mapping[str, Task[..., Any]], outbox: Outbox, answers: Answers, *, slots: int) -> None:
        self._tasks = tasks
        self._outbox = outbox
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, Attempt] = {}
        self._slots = slots
        self.acks: Acks | None = None
        self.executors: dict[Mode, Executor] = {}
        self.freed = asyncio.Event()
        """Set whenever a slot may be free again."""
        self._ended: Handover[tuple[Attempt, Ended]] = Handover(self._loop, self._on_ended)
        self._beats: Handover[Attempt] = Handover(self._loop, self._on_beats)
        self.abandoned = 0
        """Attempts answered without their thread having ended; each still has its slot."""

    @property
    def free(self) -> int:
        return self._slots - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    def report(self, attempt: Attempt, ended: Ended) -> None:
        """Called by executors, in any thread."""
        self._ended.put((attempt, ended))

    # --- the beginning ------------------------------------------------------------------------------

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            run = delivery.message.body
            assert isinstance(run, RunTask)
            self._accept(delivery, run)

    def _accept(self, delivery: Delivery, run: RunTask) -> None:
        twin = self._running.get(run.attempt_id)
        if twin is not None and not twin.answered:
            twin.deliveries.append(delivery)  # the same attempt again: one execution answers both
            return
        task = self._tasks.get(run.name)
        if task is None:
            self._refuse(delivery, run, _unknown(run.name, self._tasks))
        elif delivery.redeliveries >= DEATHS_MAX:
            self._refuse(delivery, run, _worker_died(run, delivery.redeliveries))
        elif twin is not None:
            self._refuse(
                delivery, run, Failure(name="AttemptAbandoned", message="it still runs here, after its time-out")
            )
        else:
            self._begin(delivery, run, task)

    def _begin(self, delivery: Delivery, run: RunTask, task: Task[..., Any]) -> None:
        context = TaskContext(run, lambda progress: self._heartbeat(attempt, progress))
        attempt = Attempt(run, task, [delivery], context, started_at=self._loop.time())
        self._running[run.attempt_id] = attempt
        options = run.options
        if delivery.redeliveries or options.heartbeat_timeout_ms is not None or options.queue_timeout_ms is not None:
            attempt.announced = True
            step = self._answers.started(run, delivery.redeliveries + 1)
            self._outbox.add(Answer([step], then=lambda: self._start(attempt)))
        else:
            self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        if attempt.answered:  # handed back while it was announced
            return
        if attempt.ending is not None:  # canceled while it was announced
            self._on_ended([(attempt, Ended(canceled=True))])
            return
        timeout_ms = attempt.run.options.attempt_timeout_ms
        if timeout_ms is not None:
            attempt.timer = self._loop.call_later(timeout_ms / 1000, self._time_out, attempt)
        self.executors[attempt.task.mode].start(attempt)

    # --- on its way ---------------------------------------------------------------------------------

    def cancel(self, request: AttemptCancelRequested) -> None:
        attempt = self._running.get(request.attempt_id)
        if attempt is None or attempt.ending is not None:
            return
        attempt.ending = "canceled"
        attempt.context.cancel(request.reason)
        self.executors[attempt.task.mode].cancel(attempt)

    def _time_out(self, attempt: Attempt) -> None:
        if attempt.ending is not None:
            return
        attempt.ending = "timed-out"
        attempt.context.cancel("its attempt timed out")
        self.executors[attempt.task.mode].cancel(attempt)
        grace = 0.0 if attempt.task.mode == "thread" else ABANDON_SECONDS
        attempt.timer = self._loop.call_later(grace, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        """Answer for it though it runs on: its slot stays taken until it ends."""
        if attempt.answered:
            return
        self.abandoned += 1
        log.warning(
            "attempt_abandoned",
            extra={"action": "attempt_abandoned", "task": attempt.run.name, "abandoned": self.abandoned},
        )
        self._answer(attempt, self._steps(attempt, Ended()))

    def announce_long(self) -> None:
        """Tell of attempts that run for long where they run. Called now and then."""
        before = self._loop.time() - LONG_SECONDS
        for attempt in self._running.values():
            if not attempt.announced and not attempt.answered and attempt.started_at < before:
                attempt.announced = True
                self._outbox.add(Answer([self._answers.started(attempt.run, 1)]))

    def _heartbeat(self, attempt: Attempt, progress: Payload | None) -> None:
        """In any thread."""
        if progress is not None:
            attempt.progress = progress
        self._beats.put(attempt)

    def _on_beats(self, attempts: list[Attempt]) -> None:
        now = self._loop.time()
        for attempt in attempts:
            if attempt.answered or attempt.beat_timer is not None:
                continue
            due = attempt.beat_at + _beat_seconds(attempt.run)
            if attempt.beat_at and now < due:
                attempt.beat_timer = self._loop.call_later(due - now, self._beat, attempt)
            else:
                self._beat(attempt)

    def _beat(self, attempt: Attempt) -> None:
        attempt.beat_timer = None
        if attempt.answered:
            return
        attempt.beat_at = self._loop.time()
        self._outbox.add(Answer([self._answers.heartbeat(attempt.run, attempt.progress)]))

    # --- the end ------------------------------------------------------------------------------------

    def _on_ended(self, ended: list[tuple[Attempt, Ended]]) -> None:
        for attempt, how in ended:
            if self._running.get(attempt.run.attempt_id) is attempt:
                del self._running[attempt.run.attempt_id]
            if attempt.answered:
                self.abandoned -= 1
            else:
                self._answer(attempt, self._steps(attempt, how))
        self.freed.set()

    def _steps(self, attempt: Attempt, how: Ended) -> list[Step]:
        delivery, run = attempt.deliveries[0], attempt.run
        if attempt.context.delegated and how.failure is None and not how.canceled and attempt.ending is None:
            return self._answers.outcome(delivery, run, "completed", delegated=True)
        if how.result is not None:
            return self._answers.outcome(delivery, run, "completed", result=how.result)
        if attempt.ending == "timed-out":
            return self._answers.outcome(delivery, run, "timed-out", failure=_timed_out(run))
        if attempt.ending == "canceled":
            return self._answers.outcome(delivery, run, "canceled", failure=how.failure)
        return self._answers.outcome(delivery, run, "failed", failure=how.failure)

    def _answer(self, attempt: Attempt, steps: list[Step]) -> None:
        attempt.answered = True
        for timer in (attempt.timer, attempt.beat_timer):
            if timer is not None:
                timer.cancel()
        run, delivery = attempt.run, attempt.deliveries[0]
        self._outbox.add(
            Answer(
                steps,
                attempt.deliveries,
                self.acks,
                instead=lambda problem: self._answers.outcome(delivery, run, "failed", failure=_too_large(problem)),
            )
        )

    def _refuse(self, delivery: Delivery, run: RunTask, failure: Failure) -> None:
        steps = self._answers.outcome(delivery, run, "failed", failure=failure)
        self._outbox.add(Answer(steps, [delivery], self.acks))

    def give_up(self) -> None:
        """At the end of the grace period: stop what still runs, unanswered. It will be delivered to somebody else."""
        for attempt in self._running.values():
            if attempt.answered:
                continue
            attempt.answered = True
            self.abandoned += 1
            attempt.context.cancel("its worker ends")
            self.executors[attempt.task.mode].cancel(attempt)
            log.warning("attempt_handed_back", extra={"action": "attempt_handed_back", "task": attempt.run.name})


def _beat_seconds(run: RunTask) -> float:
    timeout_ms = run.options.heartbeat_timeout_ms
    return HEARTBEAT_SECONDS if timeout_ms is None else timeout_ms / 1000 / HEARTBEATS_PER_TIMEOUT


def _unknown(name: str, tasks: Mapping[str, Any]) -> Failure:
    registered = ", ".join(sorted(tasks)) or "none"
    message = f"this worker has no task {name!r}; it has: {registered}"
    return Failure(name="UnknownTask", message=message, retryable=False)


def _worker_died(run: RunTask, deaths: int) -> Failure:
    return Failure(
        name="WorkerDied",
        message=f"{deaths} workers died or lost their broker while they ran this attempt of {run.name}",
        retryable="WorkerDied" not in run.options.retry.non_retryable,
    )


def _timed_out(run: RunTask) -> Failure:
    message = f"attempt {run.attempt} of {run.name} did not end within {run.options.attempt_timeout_ms} ms"
    return Failure(name="TimedOut", message=message)


def _too_large(problem: str) -> Failure:
    return Failure(name="MessageTooLarge", message=f"the result cannot be sent: {problem}", retryable=False)
