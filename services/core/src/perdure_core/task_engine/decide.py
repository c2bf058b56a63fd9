"""What each message does to a supervised task.

Attempt 1 of a workflow's task is dispatched by the workflow engine; `DispatchTask` is held here and, in the
common case, met by its outcome in memory, so nothing is stored. What fails, or outlives its hold, gets a record.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from perdure_core.retry import next_delay_ms
from perdure_core.task_engine.deadlines import next_deadline, watch_again
from perdure_core.task_engine.decisions import Ask, Authority, Decision, Discard, Effect, Emit, Header, Hold, Save
from perdure_core.task_engine.effects import answers, changed, command_reply, run_task, stop_attempt, task_result, timer
from perdure_core.task_engine.state import TaskRecord, born, unborn
from perdure_schemas.common import Failure, Outcome
from perdure_schemas.messages import (
    AttemptHeartbeat,
    AttemptOutcome,
    AttemptStarted,
    CancelTask,
    CompleteTask,
    DispatchTask,
    RetryTask,
    TaskMessage,
    TaskTimerFired,
    WaitForTask,
)

DELIVERIES_MAX = 3
"""So many deliveries that died with their worker fail the attempt."""
RECORD_TTL_MS = 7 * 24 * 3_600_000
"""A closed record is kept a week, to answer repetitions and whoever asks for the result."""


def decide(  # noqa: C901 - one branch per member of a closed union
    record: TaskRecord | None, message: TaskMessage, header: Header, authority: Authority | None
) -> Decision:
    """Total and pure: any message on any record has an answer."""
    if record is not None and (record.cause == header.id or header.id in record.commands):
        return Emit(_effects(record))
    match message:
        case DispatchTask():
            return _dispatch(record, message, header, authority)
        case AttemptOutcome():
            return _outcome(record, message, header)
        case AttemptStarted():
            return _started(record, message, header)
        case AttemptHeartbeat():
            return _heartbeat(record, message, header)
        case CancelTask():
            return _cancel(record, message, header)
        case RetryTask():
            return _retry(record, message, header)
        case CompleteTask():
            return _complete(record, message, header)
        case WaitForTask():
            return _wait(record, message, header)
        case TaskTimerFired():
            return _fired(record, message, header, authority)
        case _:
            assert_never(message)


def _next(record: TaskRecord, header: Header, **changes: object) -> TaskRecord:
    """A transition: whom it tells, and which attempt it stops, is said anew each time."""
    told: dict[str, object] = {"cause": header.id, "stopped": None, "reply_topic": "", **changes}
    return msgspec.structs.replace(record, version=record.version + 1, at=max(record.at, header.at), **told)


def _noted(record: TaskRecord, header: Header, **changes: object) -> TaskRecord:
    """No transition: the last one's message, if it comes again, must still find its effects (protocol rule 26)."""
    at = max(record.at, header.at)
    return msgspec.structs.replace(record, version=record.version + 1, at=at, **changes)


def _save(record: TaskRecord) -> Save:
    """The watch timer of an open record is confirmed before the record is saved (protocol rule 24)."""
    before = [timer(record, next_deadline(record)[0])] if record.open else []
    ttl = None if record.open else RECORD_TTL_MS
    return Save(record=record, before=before, effects=_effects(record), ttl_ms=ttl)


def _effects(record: TaskRecord) -> list[Effect]:
    """A function of the record, so that a repetition publishes the same."""
    effects = [changed(record)]
    if record.status == "queued" and record.relayed:
        effects.append(run_task(record))
    if record.stopped is not None:
        effects.append(stop_attempt(record, record.stopped))
    if not record.open and not record.closed:
        effects += answers(record)
    if record.reply_topic:
        effects.append(command_reply(record, record.reply_topic))
    return effects


def _dispatch(
    record: TaskRecord | None, message: DispatchTask, header: Header, authority: Authority | None
) -> Decision:
    if record is not None and not record.unborn and record.generation >= message.generation:
        return Discard("duplicate")
    if record is not None and record.unborn and record.generation >= message.generation:
        return _save(_next(record, header, task=message))
    if message.workflow is not None:
        if not header.waited:
            return Hold()
        closed = _closed_by(authority, message)
        if closed is not None:
            return closed
    before = record.version if record is not None else 0
    return _save(_next(msgspec.structs.replace(born(message, at=header.at, cause=""), version=before), header))


def _closed_by(authority: Authority | None, task: DispatchTask) -> Decision | None:
    """What the run's history says against going on; `None`: nothing (protocol rule 22)."""
    if task.workflow is None:
        return None
    if authority is None:
        return Ask(task.workflow, task.generation)
    match authority.state:
        case "open":
            return None
        case "settled":
            return Discard("settled")
        case "ended":
            return Discard("run-ended")
        case "gone":
            return Discard("command-gone")
        case _:
            assert_never(authority.state)


def _outcome(record: TaskRecord | None, message: AttemptOutcome, header: Header) -> Decision:
    if record is None or message.generation > record.generation:
        return _outcome_first(record, message, header)
    if not record.open or message.generation < record.generation:
        return Discard("stale-attempt")
    if message.delegated:
        return _save(_next(record, header, status="running", delegated=True))
    if message.outcome in ("completed", "skipped"):
        known = record.task.workflow is not None
        ended = _next(record, header, status="completed", result=message.result, closed=known)
        return _save(ended)
    if message.attempt != record.attempt:
        return Discard("stale-attempt")
    return _attempt_failed(record, message.outcome, _failure(message), header)


def _reborn(record: TaskRecord | None, task: DispatchTask, attempt: int, header: Header) -> TaskRecord:
    """The task as dispatched, in the place of the record of an older generation, if there is one."""
    version = record.version if record is not None else 0
    return msgspec.structs.replace(born(task, at=header.at, cause=""), attempt=attempt, version=version)


def _outcome_first(older: TaskRecord | None, message: AttemptOutcome, header: Header) -> Decision:
    """No record of this generation: a success meets its DispatchTask in memory, the rest makes one (rule 27)."""
    if message.task is None:
        return Discard("duplicate") if header.waited else Hold()
    record = _reborn(older, message.task, message.attempt, header)
    if message.delegated:
        return _save(_next(record, header, status="running", delegated=True))
    return _attempt_failed(record, message.outcome, _failure(message), header)


def _failure(message: AttemptOutcome) -> Failure:
    return message.failure or Failure(name=message.outcome, message="the attempt ended without a reason")


def _attempt_failed(record: TaskRecord, outcome: Outcome, failure: Failure, header: Header) -> Decision:
    if outcome == "canceled":
        return _save(_next(record, header, status="canceled", failure=failure))
    policy = record.task.options.retry
    number = record.attempt - record.first_attempt + 1
    delay = next_delay_ms(policy, failure, attempt=number, attempt_id=record.attempt_id)
    if delay is None:
        status = "timed-out" if outcome == "timed-out" else "failed"
        stopped = record.stopped if outcome == "timed-out" else None
        return _save(_next(record, header, status=status, failure=failure, retry_at=None, stopped=stopped))
    waiting = _next(
        record,
        header,
        status="waiting-retry",
        attempt=record.attempt + 1,
        retry_at=max(record.at, header.at) + delay,
        failure=failure,
        deliveries=0,
        started_at=None,
        inbox="",
        stopped=record.stopped if outcome == "timed-out" else None,
        delegated=False,
    )
    return _save(waiting)


def _started(record: TaskRecord | None, message: AttemptStarted, header: Header) -> Decision:
    if record is None or message.generation > record.generation:
        if message.task is None:
            return Discard("unknown-task")
        record = _reborn(record, message.task, message.attempt, header)
    if not record.open or message.attempt != record.attempt or message.generation < record.generation:
        return Discard("stale-attempt")
    if message.deliveries >= DELIVERIES_MAX:
        dead = Failure(name="WorkerDied", message=f"{message.deliveries} workers died while they ran this attempt")
        return _attempt_failed(record, "failed", dead, header)
    started = _next(
        record,
        header,
        status="running",
        started_at=header.at,
        deliveries=message.deliveries,
        worker=message.worker,
        inbox=message.inbox,
        relayed=False,
    )
    return _save(started)


def _heartbeat(record: TaskRecord | None, message: AttemptHeartbeat, header: Header) -> Decision:
    if record is None:
        return Discard("unknown-task") if header.waited else Hold()
    if not record.open or message.attempt != record.attempt or message.generation != record.generation:
        return Discard("stale-heartbeat")
    alive = _noted(
        record,
        header,
        status="running",
        heartbeat_at=header.at,
        progress=message.progress,
        inbox=message.inbox or record.inbox,
    )
    return Save(record=alive, effects=[changed(alive)])


def _cancel(record: TaskRecord | None, message: CancelTask, header: Header) -> Decision:
    if record is None:
        record = born(unborn(message), at=header.at, cause="")
    elif not record.open:
        return Discard("settled")
    failure = Failure(name="Canceled", message=message.reason or "the task was canceled")
    canceled = _next(
        record, header, status="canceled", failure=failure, stopped=record.running, reply_topic=message.reply_topic
    )
    return _save(canceled)


def _retry(record: TaskRecord | None, message: RetryTask, header: Header) -> Decision:
    if record is None or record.unborn:
        return Discard("unknown-task")
    if record.status == "completed" or (record.task.workflow is not None and not record.open):
        return Discard("settled")
    task = record.task
    if message.args is not None:
        task = msgspec.structs.replace(task, args=message.args)
    attempt = record.attempt if record.status == "waiting-retry" else record.attempt + 1
    again = _next(
        record,
        header,
        task=task,
        status="queued",
        attempt=attempt,
        first_attempt=attempt,
        relayed=True,
        retry_at=None,
        dispatched_at=header.at,
        stopped=record.running,
        inbox="",
        reply_topic=message.reply_topic,
        commands=[*record.commands[-9:], header.id],
    )
    return _save(again)


def _complete(record: TaskRecord | None, message: CompleteTask, header: Header) -> Decision:
    if record is None:
        return Discard("unknown-task") if header.waited else Hold()
    if not record.open:
        return Discard("settled")
    statuses = {"completed": "completed", "skipped": "skipped", "canceled": "canceled", "timed-out": "timed-out"}
    ended = _next(
        record,
        header,
        status=statuses.get(message.outcome, "failed"),
        result=message.result,
        failure=message.failure,
        stopped=record.running,
        reply_topic=message.reply_topic,
    )
    return _save(ended)


WAITERS_MAX = 100
"""Whoever waits asks again: so many topics are remembered, and the record stays small."""


def _wait(record: TaskRecord | None, message: WaitForTask, header: Header) -> Decision:
    if record is None:
        return Discard("unknown-task") if header.waited else Hold()
    if not record.open:
        return Emit([task_result(record, message.reply_topic)])
    if message.reply_topic in record.waiters or len(record.waiters) >= WAITERS_MAX:
        return Discard("duplicate")
    return Save(record=_noted(record, header, waiters=[*record.waiters, message.reply_topic]))


def _fired(record: TaskRecord | None, message: TaskTimerFired, header: Header, authority: Authority | None) -> Decision:
    if record is not None and not record.open:
        return Discard("settled")
    if record is None and message.task.workflow is None:
        return Discard("unknown-task")
    if record is not None and (message.generation, message.attempt) < (record.generation, record.attempt):
        return Discard("stale-attempt")
    closed = _closed_by(authority, message.task)
    if isinstance(closed, Ask):
        return closed
    if record is None:
        record = _reborn(None, message.task, message.attempt, header)
    if closed is not None:
        return _save(_next(record, header, status="completed", closed=True))
    due_at, kind = next_deadline(record)
    if kind == "watch":
        again = _noted(record, header)
        return Save(record=again, before=[timer(again, watch_again(record, message.due_at))])
    if due_at > max(header.at, message.due_at):
        rearmed = _noted(record, header)
        return Save(record=rearmed, before=[timer(rearmed, due_at)])
    if kind == "retry":
        return _save(_next(record, header, status="queued", relayed=True, retry_at=None, dispatched_at=header.at))
    failure = Failure(name="TimedOut", message=f"the task exceeded its {kind} time-out", retryable=kind != "total")
    timed_out = msgspec.structs.replace(record, stopped=record.running)
    return _attempt_failed(timed_out, "timed-out", failure, header)
