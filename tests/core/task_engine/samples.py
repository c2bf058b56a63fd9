"""A task, the messages about it, and what a decision on them does."""

from __future__ import annotations

from typing import TypeVar

from perdure_core.task_engine.decide import decide
from perdure_core.task_engine.decisions import Authority, Decision, Discard, Emit, Header, Save
from perdure_core.task_engine.state import TaskRecord
from perdure_schemas import ids, topics
from perdure_schemas.common import NULL, Address, Failure, Outcome, Payload, RetryPolicy, TaskOptions, WorkflowRef
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

ASKER = "inbox.client"
WORKER = "inbox.worker"
RUN = WorkflowRef("w", "r", "order")
OPEN = Authority(state="open")
SETTLED = Authority(state="settled", outcome="completed", settled_seq=4)
TWICE = TaskOptions(retry=RetryPolicy(attempts_max=2, initial_delay_ms=100, jitter=0.0))
VALUE = Payload("json", b"7")
KindT = TypeVar("KindT")


def task(generation: int = 0, *, alone: bool = False, options: TaskOptions | None = None) -> DispatchTask:
    return DispatchTask(
        task_id="t",
        name="charge",
        args=NULL,
        options=options or TaskOptions(),
        answer_to=[Address("inbox.starter", "t")] if alone else [Address(topics.WORKFLOW_ENGINE, "w")],
        generation=generation,
        dispatched=not alone,
        workflow=None if alone else RUN,
    )


def attempt(number: int, generation: int = 0) -> str:
    return ids.attempt_id("t", generation, number)


def outcome(
    how: Outcome, number: int = 1, generation: int = 0, *, of: DispatchTask | None = None, delegated: bool = False
) -> AttemptOutcome:
    """Of attempt `number`; with `of`, it brings what a record needs."""
    done = how == "completed"
    return AttemptOutcome(
        task_id="t",
        attempt_id=attempt(number, generation),
        attempt=number,
        outcome=how,
        generation=generation,
        result=VALUE if done and not delegated else None,
        failure=None if done else Failure(name="ValueError", message="no"),
        delegated=delegated,
        task=of,
    )


def started(
    number: int = 1, generation: int = 0, *, deliveries: int = 1, of: DispatchTask | None = None
) -> AttemptStarted:
    return AttemptStarted(
        task_id="t",
        attempt_id=attempt(number, generation),
        attempt=number,
        generation=generation,
        deliveries=deliveries,
        worker="worker",
        inbox=WORKER,
        task=of,
    )


def heartbeat(number: int = 1, generation: int = 0) -> AttemptHeartbeat:
    return AttemptHeartbeat(
        task_id="t",
        attempt_id=attempt(number, generation),
        attempt=number,
        generation=generation,
        progress=VALUE,
        inbox=WORKER,
    )


def fired(due_at: int, number: int = 1, *, of: DispatchTask) -> TaskTimerFired:
    return TaskTimerFired(task_id="t", generation=of.generation, attempt=number, due_at=due_at, task=of)


def cancel(*, by_workflow: bool = False, generation: int = 0) -> CancelTask:
    if not by_workflow:
        return CancelTask(task_id="t", reply_topic=ASKER)
    answer_to = [Address(topics.WORKFLOW_ENGINE, "w")]
    return CancelTask(task_id="t", generation=generation, workflow=RUN, answer_to=answer_to)


RETRY = RetryTask(task_id="t", reply_topic=ASKER)
WAIT = WaitForTask(task_id="t", reply_topic=ASKER)
SKIP = CompleteTask(task_id="t", outcome="skipped", result=VALUE, reply_topic=ASKER)


def step(
    record: TaskRecord | None,
    message: TaskMessage,
    id: str,
    *,
    at: int = 1_000,
    waited: bool = False,
    authority: Authority | None = OPEN,
) -> Decision:
    return decide(record, message, Header(id=id, at=at, namespace="n", waited=waited), authority)


def saved(
    record: TaskRecord | None,
    message: TaskMessage,
    id: str,
    *,
    at: int = 1_000,
    waited: bool = False,
    authority: Authority | None = OPEN,
) -> Save:
    decision = step(record, message, id, at=at, waited=waited, authority=authority)
    assert isinstance(decision, Save), decision
    return decision


def supervised(*, alone: bool = False, options: TaskOptions | None = None) -> TaskRecord:
    """The record of a task dispatched at 1,000."""
    return saved(None, task(alone=alone, options=options), "d", waited=True).record


def published(decision: Decision, kind: type[KindT]) -> list[KindT]:
    effects = decision.effects if isinstance(decision, Save | Emit | Discard) else ()
    return [message.body for _, message in effects if isinstance(message.body, kind)]


def told(decision: Decision) -> list[str]:
    """The topics it publishes to, read models aside."""
    effects = decision.effects if isinstance(decision, Save | Emit | Discard) else ()
    return [topic for topic, _ in effects if topic != topics.TASK_EVENTS]
