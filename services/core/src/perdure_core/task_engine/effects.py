"""What a task record publishes. Ids are derived from the record, so a repetition is recognised."""

from __future__ import annotations

from perdure_core.task_engine.decisions import Effect
from perdure_core.task_engine.state import AttemptRef, TaskRecord, TimerRef
from perdure_schemas import ids, topics
from perdure_schemas.common import Address, Outcome
from perdure_schemas.messages import (
    AttemptCancelRequested,
    Body,
    CancelTimer,
    CommandReply,
    Message,
    ReplyStatus,
    RunTask,
    ScheduleTimer,
    TaskChanged,
    TaskOutcome,
    TaskResult,
    TaskStatus,
    TaskTimerFired,
)

_OUTCOMES: dict[TaskStatus, Outcome] = {
    "completed": "completed",
    "failed": "failed",
    "timed-out": "timed-out",
    "canceled": "canceled",
    "skipped": "skipped",
}
NAMESPACE = ""
"""The driver, which knows it, fills it in."""


def _message(record: TaskRecord, key: str, body: Body, *identity: str | int) -> Message:
    id = ids.derive_id(record.task.task_id, *identity)
    return Message(id=id, namespace=NAMESPACE, key=key, at=record.at, body=body, emitter="task-engine")


def run_task(record: TaskRecord) -> Effect:
    """The current attempt, to the task's topic."""
    task = record.task
    body = RunTask(
        task_id=task.task_id,
        attempt_id=record.attempt_id,
        attempt=record.attempt,
        name=task.name,
        args=task.args,
        options=task.options,
        answer_to=_answer_to(record),
        generation=record.generation,
        last_failure=record.failure,
        workflow=task.workflow,
    )
    topic = topics.task_run(task.name, task.options.build)
    return topic, _message(record, task.task_id, body, record.attempt_id, "run")


def _answer_to(record: TaskRecord) -> list[Address]:
    """Whom the worker tells, in order: the authority first, so that nobody hears of an outcome that may still get lost
    (protocol rule 21). Of a stand-alone task that is this engine; of a workflow's, its run."""
    own = Address(topics.TASK_ENGINE, record.task.task_id)
    others = [address for address in record.task.answer_to if address != own]
    return [own, *others] if record.task.workflow is None else [*others, own]


def timer(record: TaskRecord, due_at: int) -> Effect:
    """The next deadline: a timer of its own for each attempt and due time, so a late one takes no other's place."""
    task = record.task
    of = TimerRef(record.generation, record.attempt, due_at)
    fires = TaskTimerFired(
        task_id=task.task_id, generation=record.generation, attempt=record.attempt, due_at=due_at, task=task
    )
    body = ScheduleTimer(
        timer_id=_timer_id(record, of),
        due_at=due_at,
        target=Address(topics.TASK_ENGINE, task.task_id),
        fires=fires,
        message_id=ids.derive_id(task.task_id, "due", record.version, due_at),
    )
    return topics.TIMERS, _message(record, task.task_id, body, "timer", record.version, due_at)


def _timer_id(record: TaskRecord, of: TimerRef) -> str:
    return ids.derive_id(record.task.task_id, "due", of.generation, of.attempt, of.due_at)


def cancel_timer(record: TaskRecord, of: TimerRef) -> Effect:
    """It would fire for nothing, and holds the arguments of its task until then."""
    timer_id = _timer_id(record, of)
    body = CancelTimer(timer_id=timer_id, due_at=of.due_at)
    return topics.TIMERS, _message(record, record.task.task_id, body, "timer-off", timer_id)


def stop_attempt(record: TaskRecord, attempt: AttemptRef) -> Effect:
    """Tell the worker that its attempt is of no use any more."""
    reason = record.failure.message if record.failure is not None else f"the task is {record.status}"
    body = AttemptCancelRequested(task_id=record.task.task_id, attempt_id=attempt.attempt_id, reason=reason)
    return attempt.inbox, _message(record, "", body, "stop", attempt.attempt_id)


def answers(record: TaskRecord) -> list[Effect]:
    """The outcome, to whoever the task answers to, unless they know it, and to whoever waits for it."""
    told: list[Effect] = []
    for address in [] if record.closed else record.task.answer_to:
        if address.topic == topics.WORKFLOW_ENGINE:
            told.append(_task_outcome(record, address))
        elif address.topic != topics.TASK_ENGINE:
            told.append(task_result(record, address.topic))
    return [*told, *(task_result(record, topic) for topic in record.waiters)]


def _task_outcome(record: TaskRecord, address: Address) -> Effect:
    workflow = record.task.workflow
    body = TaskOutcome(
        workflow_id=address.key,
        run_id=workflow.run_id if workflow is not None else "",
        command_id=record.task.task_id,
        generation=record.generation,
        attempt=record.attempt,
        outcome=_OUTCOMES[record.status],
        result=record.result,
        failure=record.failure if record.status not in ("completed", "skipped") else None,
    )
    return address.topic, _message(record, address.key, body, "outcome", record.generation, record.version)


def task_result(record: TaskRecord, topic: str) -> Effect:
    """The outcome, for a client."""
    body = TaskResult(
        task_id=record.task.task_id,
        outcome=_OUTCOMES[record.status],
        result=record.result,
        failure=record.failure if record.status not in ("completed", "skipped") else None,
    )
    return topic, _message(record, "", body, "result", record.version, topic)


def no_such_task(task_id: str, topic: str, cause: str, *, at: int) -> Effect:
    """To a client that waits for a task without a record."""
    body = TaskResult(task_id=task_id, outcome="not-found")
    id = ids.derive_id(task_id, "result", cause)
    return topic, Message(id=id, namespace=NAMESPACE, key="", at=at, body=body, causation_id=cause)


def command_reply(
    task_id: str, cause: str, topic: str, *, at: int, status: ReplyStatus = "ok", detail: str = "", generation: int = 0
) -> Effect:
    """To whoever asked by the message `cause`."""
    body = CommandReply(status=status, detail=detail, generation=generation)
    id = ids.derive_id(task_id, "reply", cause)
    return topic, Message(
        id=id, namespace=NAMESPACE, key="", at=at, body=body, emitter="task-engine", causation_id=cause
    )


def changed(record: TaskRecord) -> Effect:
    """For the read models."""
    body = TaskChanged(
        task_id=record.task.task_id,
        name=record.task.name,
        version=record.version,
        status=record.status,
        attempt=record.attempt,
        at=record.at,
        workflow=record.task.workflow,
        next_attempt_at=record.retry_at,
        progress=record.progress,
        failure=record.failure,
        worker=record.worker,
    )
    return topics.TASK_EVENTS, _message(record, record.task.task_id, body, "changed", record.version)
