"""How a record changes, and what a changed record publishes."""

from __future__ import annotations

import msgspec

from perdure_core.retry import next_delay_ms
from perdure_core.task_engine.deadlines import next_deadline
from perdure_core.task_engine.decisions import Ask, Authority, Effect, Header, Reason, Save
from perdure_core.task_engine.effects import (
    answers,
    cancel_timer,
    changed,
    command_reply,
    run_task,
    stop_attempt,
    timer,
)
from perdure_core.task_engine.state import COMMANDS_KEPT, AttemptRef, TaskRecord, TimerRef, born
from perdure_schemas.common import Failure, Outcome
from perdure_schemas.messages import DispatchTask, TaskStatus

RECORD_TTL_MS = 30 * 24 * 3_600_000
"""A closed record is kept as long as a tombstone: longer than any message may come again (14 days), so that no late
repetition starts a finished task anew (protocol rule 20)."""

DISARM_FROM_MS = 24 * 3_600_000
"""A timer that is due within a day is left to fire for nothing: most tasks have one, and to cancel it costs as much."""

STATUSES: dict[Outcome, TaskStatus] = {
    "completed": "completed",
    "failed": "failed",
    "timed-out": "timed-out",
    "canceled": "canceled",
    "skipped": "skipped",
}
"""`fired` is no outcome of a task."""


AGAINST: dict[str, Reason] = {"settled": "settled", "ended": "run-ended", "gone": "command-gone"}
"""What an authority's state says against going on."""


def ask(record: TaskRecord, authority: Authority | None) -> Ask | Authority | None:
    """The history's word against going on with the task, if it is a workflow's; `None`: nothing (protocol rule 22)."""
    workflow = record.task.workflow
    if workflow is None:
        return None
    if authority is None:
        return Ask(workflow, record.generation, wants_event=bool(record.waiters))
    return authority if authority.state in AGAINST else None


def moved(record: TaskRecord, header: Header, **changes: object) -> TaskRecord:
    """A transition: whom it tells, and which attempt it stops, is said anew each time."""
    told: dict[str, object] = {"cause": header.id, "stopped": None, "reply_topic": "", **changes}
    return msgspec.structs.replace(record, version=record.version + 1, at=max(record.at, header.at), **told)


def noted(record: TaskRecord, header: Header, **changes: object) -> TaskRecord:
    """No transition: the last one's message, if it comes again, must still find its effects (protocol rule 26)."""
    at = max(record.at, header.at)
    return msgspec.structs.replace(record, version=record.version + 1, at=at, **changes)


def commanded(record: TaskRecord, header: Header, reply_topic: str, **changes: object) -> TaskRecord:
    """A transition that somebody asked for: it is answered, and known when it comes again after others."""
    commands = [*record.commands[1 - COMMANDS_KEPT :], header.id]
    return moved(record, header, commands=commands, reply_topic=reply_topic, **changes)


def reborn(older: TaskRecord | None, task: DispatchTask, attempt: int, header: Header) -> TaskRecord:
    """The task as dispatched, in the place of the record of an older generation, if there is one."""
    record = born(task, at=header.at, cause="")
    if older is None:
        return msgspec.structs.replace(record, attempt=attempt)
    waiters = older.waiters if older.open else []  # the others were told
    return msgspec.structs.replace(
        record,
        attempt=attempt,
        version=older.version,
        commands=older.commands,
        waiters=waiters,
        timers=older.timers,
    )


def armed(record: TaskRecord, due_at: int) -> TaskRecord:
    """With a timer at that time."""
    timer_ref = TimerRef(record.generation, record.attempt, due_at)
    others = [other for other in record.timers if other != timer_ref and other.due_at > record.at]
    return msgspec.structs.replace(record, timers=[*others, timer_ref])


def _timed(record: TaskRecord) -> TaskRecord:
    """With the timer of its next deadline; those of attempts that are over are off. Never one of the current attempt:
    that might be set once more, and a cancel that comes twice would take it away."""
    current = (record.generation, record.attempt)
    to_come = [each for each in record.timers if each.due_at > record.at]
    kept = [each for each in to_come if record.open and (each.generation, each.attempt) == current]
    disarmed = [each for each in to_come if each not in kept and each.due_at > record.at + DISARM_FROM_MS]
    timed = msgspec.structs.replace(record, timers=kept, disarmed=disarmed)
    return armed(timed, next_deadline(timed)[0]) if timed.open else timed


def save(record: TaskRecord) -> Save:
    """The timer of a workflow's task is confirmed before the record is saved: its dispatch, coming again, may be met
    in memory and forgotten (rule 24). That of a stand-alone task is an effect: no dispatch of it is ever forgotten."""
    record = _timed(record)
    before = [timer(record, next_deadline(record)[0])] if record.open and record.task.workflow is not None else []
    ttl = None if record.open else RECORD_TTL_MS
    return Save(record=record, before=before, effects=effects(record), ttl_ms=ttl)


def effects(record: TaskRecord) -> list[Effect]:
    """A function of the record, so that a repetition publishes the same."""
    published = [changed(record)]
    if record.open and record.task.workflow is None:
        published.append(timer(record, next_deadline(record)[0]))
    published += [cancel_timer(record, each) for each in record.disarmed]
    if record.status == "queued" and record.relayed:
        published.append(run_task(record))
    if record.stopped is not None:
        published.append(stop_attempt(record, record.stopped))
    if not record.open:
        published += answers(record)
    if record.reply_topic:
        published.append(command_reply(record.task.task_id, record.cause, record.reply_topic, at=record.at))
    return published


def closed_by(record: TaskRecord, authority: Authority, header: Header) -> Save:
    """The history had the last word: supervision ends, whoever waits is told, and a worker known to be busy, too."""
    event = authority.settled
    over = moved(
        record,
        header,
        status=STATUSES.get(authority.outcome or "canceled", "completed"),
        closed=True,
        result=event.result if event is not None else None,
        failure=event.failure if event is not None else record.failure,
        stopped=record.running,
        retry_at=None,
    )
    return save(over)


def ended(
    record: TaskRecord, outcome: Outcome, failure: Failure, header: Header, *, stopped: AttemptRef | None = None
) -> Save:
    """No further attempt."""
    status = STATUSES.get(outcome, "failed")
    return save(moved(record, header, status=status, failure=failure, retry_at=None, stopped=stopped))


def attempt_failed(
    record: TaskRecord, outcome: Outcome, failure: Failure, header: Header, *, stopped: AttemptRef | None = None
) -> Save:
    """Another attempt, if the retry policy has one left. `stopped`: a worker is still busy with this one."""
    policy = record.task.options.retry
    number = record.attempt - record.first_attempt + 1
    delay = next_delay_ms(policy, failure, attempt=number, attempt_id=record.attempt_id)
    if outcome == "canceled" or delay is None:
        return ended(record, outcome, failure, header, stopped=stopped)
    waiting = moved(
        record,
        header,
        status="waiting-retry",
        attempt=record.attempt + 1,
        retry_at=max(record.at, header.at) + delay,
        failure=failure,
        deliveries=0,
        started_at=None,
        heartbeat_at=None,
        inbox="",
        stopped=stopped,
        delegated=False,
    )
    return save(waiting)


def started(record: TaskRecord, header: Header, attempt: AttemptRef, **changes: object) -> Save:
    """A worker has the attempt; if that worker dies, the broker gives it to another."""
    inbox = attempt.inbox or record.inbox
    return save(moved(record, header, status="running", inbox=inbox, **changes))
