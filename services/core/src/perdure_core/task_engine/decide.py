"""What each message does to a supervised task.

Attempt 1 of a workflow's task is dispatched by the workflow engine; `DispatchTask` is held here and, in the
common case, met by its outcome in memory, so nothing is stored. What fails, or outlives its hold, gets a record.
"""

from __future__ import annotations

from typing import assert_never

from perdure_core.blobs import owned, refers
from perdure_core.task_engine.deadlines import FINAL, next_deadline, next_watch
from perdure_core.task_engine.decisions import Ask, Authority, Decision, Discard, Effect, Emit, Header, Hold, Save
from perdure_core.task_engine.effects import changed, stop_attempt, timer
from perdure_core.task_engine.people import decide_again, decide_cancel, decide_complete, decide_retry, decide_wait
from perdure_core.task_engine.state import AttemptRef, TaskRecord
from perdure_core.task_engine.transitions import (
    AGAINST,
    armed,
    ask,
    attempt_failed,
    closed_by,
    effects,
    ended,
    moved,
    noted,
    reborn,
    save,
    started,
)
from perdure_schemas.common import Failure
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

DEATHS_MAX = 3
"""So many deliveries that died with their worker fail the attempt."""


def decide(  # noqa: C901 - one branch per member of a closed union
    record: TaskRecord | None, message: TaskMessage, header: Header, authority: Authority | None
) -> Decision:
    """Total and pure: any message on any record has an answer.

    `authority`: what the history says, if an `Ask` was the answer without it.
    """
    message = _of_run(record, message)
    if record is not None and record.cause == header.id:
        return _repeated(record, header, authority)
    if record is not None and header.id in record.commands:
        return decide_again(record, message, header)
    match message:
        case DispatchTask():
            return _dispatch(record, message, header, authority)
        case AttemptOutcome():
            return _outcome(record, message, header, authority)
        case AttemptStarted():
            return _started(record, message, header, authority)
        case AttemptHeartbeat():
            return _heartbeat(record, message, header)
        case CancelTask():
            return decide_cancel(record, message, header)
        case RetryTask():
            return decide_retry(record, message, header, authority)
        case CompleteTask():
            return decide_complete(record, message, header)
        case WaitForTask():
            return decide_wait(record, message, header)
        case TaskTimerFired():
            return _fired(record, message, header, authority)
        case _:
            assert_never(message)


def _of_run(record: TaskRecord | None, message: TaskMessage) -> TaskMessage:
    """An outcome as its run has it: what it refers to is the run's own once the run has recorded it, and no longer in
    transit. Who looks for it finds it in either place."""
    if not isinstance(message, AttemptOutcome | CompleteTask) or not refers(message):
        return message
    told = message.task if isinstance(message, AttemptOutcome) else None
    task = told if record is None else record.task
    workflow = None if task is None else task.workflow
    return message if workflow is None else owned(message, workflow.workflow_id, workflow.run_id)


def _repeated(record: TaskRecord, header: Header, authority: Authority | None) -> Decision:
    """The message of the last transition came again: its effects do, but no RunTask after an outcome (rules 4, 26)."""
    if record.status == "queued" and record.relayed:
        against = ask(record, authority)
        if isinstance(against, Ask):
            return against
        if against is not None:
            return closed_by(record, against, header)
    return Emit(effects(record))


def _dispatch(
    record: TaskRecord | None, message: DispatchTask, header: Header, authority: Authority | None
) -> Decision:
    if record is not None and record.generation >= message.generation:
        return save(moved(record, header, task=message)) if record.unborn else Discard("duplicate")
    fresh = reborn(record, message, message.attempt, header)
    if message.workflow is not None:
        if not header.waited:
            return Hold()
        against = ask(fresh, authority)
        if against is not None:
            return against if isinstance(against, Ask) else Discard(AGAINST[against.state])
    return save(moved(fresh, header))


def _outcome(
    record: TaskRecord | None, message: AttemptOutcome, header: Header, authority: Authority | None
) -> Decision:
    if message.outcome == "fired":
        return Discard("not-an-outcome")
    if message.outcome in {"completed", "skipped"} and not message.delegated:
        return _succeeded(record, message, header)
    if record is None or message.generation > record.generation:
        if message.task is None:
            return Discard("unknown-task") if header.waited else Hold()
        record = reborn(record, message.task, message.attempt, header)
        against = ask(record, authority)
        if against is not None:
            return against if isinstance(against, Ask) else Discard(AGAINST[against.state])
    elif not _current(record, message.attempt, message.generation):
        return Discard("stale-attempt")
    if message.delegated:
        return save(moved(record, header, status="running", delegated=True))
    failure = message.failure or Failure(name=message.outcome, message="the attempt ended without a reason")
    return attempt_failed(record, message.outcome, failure, header)


def _succeeded(record: TaskRecord | None, message: AttemptOutcome, header: Header) -> Decision:
    """A success counts whatever its attempt and generation (rule 31). Of a workflow's task it only ends supervision:
    the worker told the run first (rule 21). If it did so before a rewind, the run may have had another outcome then,
    and ignored this one: it is told again."""
    if record is None or (not record.open and record.generation < message.generation):
        return Discard("unknown-task") if header.waited else Hold()
    if not record.open:
        return Discard("settled")
    done = moved(
        record,
        header,
        status="completed",
        generation=max(record.generation, message.generation),
        result=message.result,
        failure=None,
        retry_at=None,
        closed=record.task.workflow is not None and message.generation >= record.generation,
        stopped=record.running if message.attempt_id != record.attempt_id else None,
    )
    return save(done)


def _current(record: TaskRecord, attempt: int, generation: int) -> bool:
    """Whether the attempt is the one that runs, or waits to be taken."""
    running = record.status in {"queued", "running"}
    return running and (attempt, generation) == (record.attempt, record.generation)


def _started(
    record: TaskRecord | None, message: AttemptStarted, header: Header, authority: Authority | None
) -> Decision:
    attempt = AttemptRef(message.attempt_id, message.inbox)
    if record is None or message.generation > record.generation:
        if message.task is None:
            return Discard("unknown-task")
        record = reborn(record, message.task, message.attempt, header)
        against = ask(record, authority)
        if against is not None:
            return against if isinstance(against, Ask) else Discard(AGAINST[against.state], _stop(record, attempt))
    elif not _current(record, message.attempt, message.generation):
        return Discard("stale-attempt", _stop(record, attempt))
    if message.deliveries > DEATHS_MAX:
        dead = Failure(name="WorkerDied", message=f"{DEATHS_MAX} workers died while they ran this attempt")
        return attempt_failed(record, "failed", dead, header, stopped=attempt if attempt.inbox else None)
    deliveries = max(record.deliveries, message.deliveries)
    return started(record, header, attempt, started_at=header.at, deliveries=deliveries, worker=message.worker)


def _stop(record: TaskRecord, attempt: AttemptRef) -> list[Effect]:
    """A worker tells that it is busy with what is of no use any more."""
    return [stop_attempt(record, attempt)] if attempt.inbox else []


def _heartbeat(record: TaskRecord | None, message: AttemptHeartbeat, header: Header) -> Decision:
    if record is None:
        return Discard("unknown-task") if header.waited else Hold()
    attempt = AttemptRef(message.attempt_id, message.inbox)
    if not _current(record, message.attempt, message.generation):
        return Discard("stale-heartbeat", _stop(record, attempt))
    signs: dict[str, object] = {"heartbeat_at": max(record.heartbeat_at or 0, header.at), "progress": message.progress}
    if record.status == "queued":  # its announcement is late or lost: from now on its heartbeats are watched
        return started(record, header, attempt, started_at=header.at, **signs)
    alive = noted(record, header, inbox=message.inbox or record.inbox, **signs)
    return Save(record=alive, effects=[changed(alive)])


def _fired(record: TaskRecord | None, message: TaskTimerFired, header: Header, authority: Authority | None) -> Decision:
    made = record is None or message.generation > record.generation
    if record is None or made:
        if message.task.workflow is None:
            return Discard("unknown-task")
        record = reborn(record, message.task, message.attempt, header)
    elif not record.open:
        return Discard("settled")
    elif (message.generation, message.attempt) < (record.generation, record.attempt):
        return Discard("stale-attempt")
    against = ask(record, authority)
    if isinstance(against, Ask):
        return against
    if against is not None:
        return closed_by(record, against, header)
    if made and message.attempt > message.task.attempt:  # the failure before it has made no record yet (rule 25)
        return save(moved(record, header, status="queued", relayed=True))
    return _due(record, message, header)


def _due(record: TaskRecord, message: TaskTimerFired, header: Header) -> Decision:
    """The record is open, and its run still waits for it."""
    due_at, kind = next_deadline(record)
    if kind == "watch":
        due_at = next_watch(record, max(message.due_at, record.at))
    if kind == "watch" or due_at > max(header.at, message.due_at):
        rearmed = armed(noted(record, header), due_at)
        return Save(record=rearmed, before=[timer(rearmed, due_at)])
    if kind == "retry":
        return save(
            moved(record, header, status="queued", relayed=True, retry_at=None, dispatched_at=header.at, worker="")
        )
    failure = Failure(name="TimedOut", message=f"the task exceeded its {kind} time-out", retryable=kind not in FINAL)
    if kind in FINAL:
        return ended(record, "timed-out", failure, header, stopped=record.running)
    return attempt_failed(record, "timed-out", failure, header, stopped=record.running)
