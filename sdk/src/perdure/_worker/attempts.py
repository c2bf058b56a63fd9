"""Attempts of tasks: from their delivery to their answer. Lives on the messaging loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from perdure._worker.answers import Answers
from perdure._worker.execution import Attempt, Ended
from perdure._worker.handover import Handover
from perdure._worker.heartbeats import Heartbeats
from perdure._worker.inlet import Inlet
from perdure._worker.notices import ids_of, tell_failed
from perdure._worker.outbox import Answer, Outbox, Step
from perdure._worker.task_time import RealTime, TaskTime
from perdure._worker.ward import DEATHS_MAX
from perdure.context import TaskContext
from perdure.failures import readable
from perdure.task import Mode, Task
from perdure_core.workflow_engine.dispatch import RETOLD_BYTES_MAX
from perdure_runtime.ports import Delivery
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import AttemptCancelRequested, RunTask

log = logging.getLogger("perdure.worker")

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

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        outbox: Outbox,
        answers: Answers,
        *,
        slots: int,
        async_time: TaskTime,
    ) -> None:
        """`async_time` is that of async tasks; others live in real time."""
        self._tasks = tasks
        self._outbox = outbox
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._async_time = async_time
        self._real_time = RealTime(self._loop)
        self._running: dict[str, Attempt] = {}
        self._telling: dict[str, Attempt] = {}
        """Those that are answered, until the broker has confirmed the answer."""
        self._slots = slots
        self.inlet: Inlet | None = None
        self.executors: Mapping[Mode, Executor] = {}
        self._freed = asyncio.Event()
        """Set whenever a slot may be free again."""
        self.ended: Handover[tuple[Attempt, Ended]] = Handover(self._loop, self._on_ended)
        """Executors report here, in any thread."""
        self._heartbeats = Heartbeats(outbox, answers)
        self.abandoned = 0
        """Attempts answered without their thread having ended; each still has its slot."""

        async_time.on_jump(self.announce_long)

    @property
    def running(self) -> int:
        return len(self._running)

    # --- the beginning ------------------------------------------------------------------------------

    async def room(self) -> int:
        """Waits until a slot is free; how many are."""
        while len(self._running) >= self._slots:
            self._freed.clear()
            await self._freed.wait()
        return self._slots - len(self._running)

    def accept(self, deliveries: list[Delivery]) -> None:
        assert self.inlet is not None
        starting: list[Attempt] = []
        for delivery in deliveries:
            run = delivery.message.body
            if isinstance(run, RunTask) and _answerable(run):
                self._accept(delivery, run, starting)
            else:
                self.inlet.reject(delivery)
        if starting:
            self._start(starting)

    def _accept(self, delivery: Delivery, run: RunTask, starting: list[Attempt]) -> None:
        """Attempts that need not be announced first are put into `starting`."""
        assert self.inlet is not None
        told = self._telling.get(run.attempt_id)
        if told is not None:  # a broker that cannot take the answer may deliver the attempt over and over
            told.deliveries.append(delivery)
            return
        twin = self._running.get(run.attempt_id)
        if twin is not None and not twin.answered:
            twin.deliveries.append(delivery)  # the same attempt again: one execution answers both
            if twin.begun:  # and both die of it
                self.inlet.begin([delivery], lambda: None)
            return
        task = self._tasks.get(run.name)
        if task is None:
            refusal = _unknown(run.name, self._tasks)
        elif delivery.deaths >= DEATHS_MAX:
            refusal = _worker_died(run, delivery.deaths)
        elif twin is not None:
            refusal = Failure(name="AttemptAbandoned", message="it still runs here, after its time-out")
        else:
            self._open(delivery, run, task, starting)
            return
        self._outbox.add(
            Answer(self._answers.outcome(delivery, run, "failed", failure=refusal), [delivery], self.inlet.acks)
        )

    def _open(self, delivery: Delivery, run: RunTask, task: Task[..., Any], starting: list[Attempt]) -> None:
        context = TaskContext(run, lambda progress: self._heartbeats.report(attempt, progress))
        time = self._async_time if task.mode == "async" else self._real_time
        attempt = Attempt(run, task, [delivery], context, time, started_at=time.time())
        self._running[run.attempt_id] = attempt
        options = run.options
        if delivery.redeliveries or options.heartbeat_timeout_ms is not None or options.queue_timeout_ms is not None:
            attempt.announced = True
            step = self._answers.started(run, delivery.deaths + 1)
            self._outbox.add(Answer([step], then=lambda: self._start([attempt])))
        else:
            starting.append(attempt)

    def _start(self, attempts: list[Attempt]) -> None:
        """One mark for all that came together: more would cost more than what they tell apart."""
        assert self.inlet is not None
        for attempt in attempts:
            attempt.begun = True
        deliveries = [delivery for attempt in attempts for delivery in attempt.deliveries]

        def run() -> None:
            for attempt in attempts:
                self._run(attempt)

        if self.inlet.begin(deliveries, run):
            run()

    def _run(self, attempt: Attempt) -> None:
        if attempt.answered:  # handed back while it was announced
            return
        if attempt.ending is not None:  # canceled while it was announced
            self._on_ended([(attempt, Ended(canceled=True))])
            return
        timeout_ms = attempt.run.options.attempt_timeout_ms
        if timeout_ms is not None:
            attempt.timer = attempt.time.call_later(timeout_ms / 1000, self._time_out, attempt)
        if attempt.task.mode == "async":
            self._async_time.begun(attempt.run)
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
        attempt.timer = attempt.time.call_later(grace, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        """Answer for it though it runs on: its slot stays taken until it ends."""
        if attempt.answered:
            return
        self.abandoned += 1
        log.warning(
            "attempt_abandoned",
            extra={"action": "attempt_abandoned", "task": attempt.run.name, "abandoned": self.abandoned},
        )
        self._answer(attempt, _steps(self._answers, attempt, Ended()))

    def announce_long(self) -> None:
        """Tell of attempts that run for long where they run. Called now and then."""
        for attempt in self._running.values():
            long = attempt.time.time() - attempt.started_at > LONG_SECONDS
            if long and not attempt.announced and not attempt.answered:
                attempt.announced = True
                self._outbox.add(Answer([self._answers.started(attempt.run, 1)]))

    # --- the end ------------------------------------------------------------------------------------

    def _on_ended(self, ended: list[tuple[Attempt, Ended]]) -> None:
        for attempt, how in ended:
            if self._running.get(attempt.run.attempt_id) is attempt:
                del self._running[attempt.run.attempt_id]
            if how.failure is not None and not how.canceled:
                tell_failed(attempt.run, how.failure)
            if attempt.answered:
                self.abandoned -= 1
            else:
                self._answer(attempt, _steps(self._answers, attempt, how))
        self._freed.set()

    def _answer(self, attempt: Attempt, steps: list[Step]) -> None:
        attempt.answered = True
        self._async_time.ended(attempt.run)
        for timer in (attempt.timer, attempt.beat_timer):
            if timer is not None:
                timer.cancel()
        run, delivery = attempt.run, attempt.deliveries[0]
        assert self.inlet is not None
        self._telling[run.attempt_id] = attempt
        self._outbox.add(
            Answer(
                steps,
                attempt.deliveries,
                self.inlet.acks,
                then=partial(self._telling.__delitem__, run.attempt_id),
                instead=lambda error: self._answers.outcome(
                    delivery, run, "failed", failure=_unsendable(error), bare=len(run.args.data) > RETOLD_BYTES_MAX
                ),
            )
        )

    def give_up(self) -> None:
        """At the end of the grace period: stop what still runs, unanswered. It will be delivered to somebody else."""
        for attempt in self._running.values():
            if attempt.answered:
                continue
            attempt.answered = True
            self._async_time.ended(attempt.run)
            self.abandoned += 1
            attempt.context.cancel("its worker ends")
            self.executors[attempt.task.mode].cancel(attempt)
            facts = {"task": attempt.run.name, "attempt": attempt.run.attempt, **ids_of(attempt.run)}
            log.warning("attempt_handed_back", extra={"action": "attempt_handed_back", **facts})


def _steps(answers: Answers, attempt: Attempt, how: Ended) -> list[Step]:
    delivery, run, announced = attempt.deliveries[0], attempt.run, attempt.announced
    if attempt.context.delegated and how.failure is None and not how.canceled and attempt.ending is None:
        return answers.outcome(delivery, run, "completed", delegated=True)
    if how.result is not None:
        return answers.outcome(delivery, run, "completed", result=how.result, announced=announced)
    if attempt.ending == "timed-out":
        return answers.outcome(delivery, run, "timed-out", failure=_timed_out(run))
    if attempt.ending == "canceled":
        return answers.outcome(delivery, run, "canceled", failure=how.failure)
    return answers.outcome(delivery, run, "failed", failure=how.failure)


def _answerable(run: RunTask) -> bool:
    """One that answers to a workflow engine must name its run."""
    return run.workflow is not None or all(address.topic != topics.WORKFLOW_ENGINE for address in run.answer_to)


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


def _unsendable(error: Exception) -> Failure:
    message = f"the result cannot be sent: {readable(error)}"
    return Failure(name=type(error).__name__, message=message, retryable=False)
