"""What people, and workflow code, decide about a task. Whoever asks is answered, also when nothing can be done."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure_core.task_engine.decisions import (
    Ask,
    Authority,
    Decision,
    Discard,
    Effect,
    Emit,
    Header,
    Hold,
    Reason,
    Save,
)
from perdure_core.task_engine.effects import command_reply, no_such_task, task_result
from perdure_core.task_engine.state import TaskRecord, born, unborn
from perdure_core.task_engine.transitions import AGAINST, STATUSES, ask, closed_by, commanded, noted, save
from perdure_schemas.common import Failure
from perdure_schemas.messages import CancelTask, CompleteTask, RetryTask, TaskMessage, WaitForTask
from perdure_schemas.replies import ReplyStatus

WAITERS_MAX = 100
"""Whoever waits asks again: so many topics are remembered, and the record stays small."""

_STATUS: dict[Reason, ReplyStatus] = {"unknown-task": "not-found", "settled": "conflict"}
_DETAIL: dict[Reason, str] = {
    "unknown-task": "the task engine has no record of this task: it never was, or it is over since long",
    "run-ended": "the run of this task has ended",
    "command-gone": "a rewind of its run has undone this task",
    "not-an-outcome": "`fired` is how a timer ends, no task",
    "stale-attempt": "its run was rewound since, and has dispatched the task anew",
}


def decide_again(record: TaskRecord, message: TaskMessage, header: Header) -> Decision:
    """A command that was obeyed, and has others after it by now: only its answer is given again."""
    topic = message.reply_topic if isinstance(message, CancelTask | RetryTask | CompleteTask) else ""
    return Emit([command_reply(record.task.task_id, header.id, topic, at=record.at)] if topic else [])


def decide_cancel(record: TaskRecord | None, message: CancelTask, header: Header) -> Decision:
    """Without a record a person's cancel waits for one; a workflow's, which says whom to tell, makes one (rule 27)."""
    by_workflow = message.workflow is not None
    if record is None and not by_workflow:
        return _unknown(message.task_id, message.reply_topic, header)
    if record is None or (not record.open and message.generation > record.generation):
        version = 0 if record is None else record.version
        record = msgspec.structs.replace(born(unborn(message), at=header.at, cause=""), version=version)
    elif not record.open:
        return _settled(record, message.reply_topic, header)
    elif by_workflow and message.generation < record.generation:
        return _refused("stale-attempt", message.task_id, message.reply_topic, header)
    failure = Failure(name="Canceled", message=message.reason or "the task was canceled")
    canceled = commanded(
        record,
        header,
        message.reply_topic,
        status="canceled",
        generation=max(record.generation, message.generation),
        failure=failure,
        stopped=record.running,
        retry_at=None,
    )
    return save(canceled)


def decide_retry(
    record: TaskRecord | None, message: RetryTask, header: Header, authority: Authority | None
) -> Decision:
    """A new attempt now. Of a workflow's task only while the run waits for it: the history is asked (rule 22)."""
    if record is None or record.unborn:
        return _unknown(message.task_id, message.reply_topic, header)
    alone = record.task.workflow is None
    if record.status in {"completed", "skipped"} or not (alone or record.open):
        return _settled(record, message.reply_topic, header)
    verdict = ask(record, authority)
    if isinstance(verdict, Ask):
        return verdict
    if verdict is not None:
        closed = closed_by(record, verdict, header)
        refusal = _refused(AGAINST[verdict.state], message.task_id, message.reply_topic, header)
        return msgspec.structs.replace(closed, effects=[*closed.effects, *refusal.effects])
    task = record.task
    if message.args is not None:
        task = msgspec.structs.replace(task, args=message.args)
    attempt = record.attempt if record.status == "waiting-retry" else record.attempt + 1
    again = commanded(
        record,
        header,
        message.reply_topic,
        task=task,
        status="queued",
        attempt=attempt,
        first_attempt=attempt,
        relayed=True,
        retry_at=None,
        created_at=record.created_at if record.open else header.at,
        dispatched_at=header.at,
        started_at=None,
        heartbeat_at=None,
        deliveries=0,
        delegated=False,
        stopped=record.running,
        worker="",
        inbox="",
    )
    return save(again)


def decide_complete(record: TaskRecord | None, message: CompleteTask, header: Header) -> Decision:
    """Of a workflow's task too: the answer goes to its run, which takes the first outcome it records."""
    if message.outcome == "fired":
        return _refused("not-an-outcome", message.task_id, message.reply_topic, header)
    if record is None:
        return _unknown(message.task_id, message.reply_topic, header)
    if not record.open:
        return _settled(record, message.reply_topic, header)
    done = commanded(
        record,
        header,
        message.reply_topic,
        status=STATUSES[message.outcome],
        result=message.result,
        failure=message.failure,
        stopped=record.running,
        retry_at=None,
    )
    return save(done)


def decide_wait(record: TaskRecord | None, message: WaitForTask, header: Header) -> Decision:
    if record is None:
        told = no_such_task(message.task_id, message.reply_topic, header.id, at=header.at)
        return Discard("unknown-task", [told]) if header.waited else Hold()
    if not record.open:
        return Emit([task_result(record, message.reply_topic)])
    if message.reply_topic in record.waiters:
        return Discard("duplicate")
    if len(record.waiters) >= WAITERS_MAX:
        return Discard("too-many-waiters")
    return Save(record=noted(record, header, waiters=[*record.waiters, message.reply_topic]))


def _unknown(task_id: str, reply_topic: str, header: Header) -> Decision:
    """Its dispatch may be on its way."""
    return _refused("unknown-task", task_id, reply_topic, header) if header.waited else Hold()


def _settled(record: TaskRecord, reply_topic: str, header: Header) -> Discard:
    detail = f"the task has ended: {record.status}"
    return Discard("settled", _reply(record.task.task_id, reply_topic, header, "conflict", detail))


def _refused(reason: Reason, task_id: str, reply_topic: str, header: Header) -> Discard:
    status = _STATUS.get(reason, "refused")
    return Discard(reason, _reply(task_id, reply_topic, header, status, _DETAIL.get(reason, reason)))


def _reply(  # noqa: PLR0917 - the parts of one answer
    task_id: str, reply_topic: str, header: Header, status: ReplyStatus, detail: str
) -> Sequence[Effect]:
    if not reply_topic:
        return ()
    return [command_reply(task_id, header.id, reply_topic, at=header.at, status=status, detail=detail)]
