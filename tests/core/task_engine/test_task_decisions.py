"""Schedules in which a supervised task was lost, and must not be."""

from __future__ import annotations

from perdure_core.task_engine.decide import decide
from perdure_core.task_engine.decisions import Authority, Discard, Emit, Header, Save
from perdure_core.task_engine.state import TaskRecord
from perdure_schemas import topics
from perdure_schemas.common import NULL, Address, Failure, RetryPolicy, TaskOptions, WorkflowRef
from perdure_schemas.messages import (
    AttemptHeartbeat,
    AttemptOutcome,
    DispatchTask,
    RunTask,
    TaskMessage,
    TaskOutcome,
    TaskTimerFired,
    WaitForTask,
)

RETRIED = TaskOptions(retry=RetryPolicy(attempts_max=2, initial_delay_ms=100), attempt_timeout_ms=1_000)


def task(generation: int = 0, *, alone: bool = False, options: TaskOptions | None = None) -> DispatchTask:
    return DispatchTask(
        task_id="t",
        name="charge",
        args=NULL,
        options=options or TaskOptions(),
        answer_to=[] if alone else [Address(topics.WORKFLOW_ENGINE, "w")],
        generation=generation,
        dispatched=not alone,
        workflow=None if alone else WorkflowRef("w", "r", "order"),
    )


def step(record: TaskRecord | None, message: TaskMessage, id: str, *, at: int = 1_000, waited: bool = False) -> object:
    header = Header(id=id, at=at, namespace="n", waited=waited)
    return decide(record, message, header, Authority(state="open"))


def saved(record: TaskRecord | None, message: TaskMessage, id: str, *, at: int = 1_000, waited: bool = False) -> Save:
    decision = step(record, message, id, at=at, waited=waited)
    assert isinstance(decision, Save), decision
    return decision


def failed(generation: int, *, options: TaskOptions | None = None) -> AttemptOutcome:
    return AttemptOutcome(
        task_id="t",
        attempt_id=f"a{generation}",
        attempt=1,
        outcome="failed",
        generation=generation,
        failure=Failure(name="ValueError", message="no"),
        task=task(generation, options=options),
    )


def published(decision: Save | Emit, kind: type) -> list[object]:
    return [message.body for _, message in decision.effects if isinstance(message.body, kind)]


def test_a_resumed_task_that_fails_again_is_told_again() -> None:
    first = saved(None, failed(0), "f0")
    again = saved(first.record, failed(1), "f1")
    assert [outcome.generation for outcome in published(again, TaskOutcome)] == [1]  # type: ignore[attr-defined]
    assert again.record.version == first.record.version + 1


def test_a_wait_keeps_the_dispatch_to_be_published_again() -> None:
    dispatched = saved(None, task(alone=True), "d")
    waiting = saved(dispatched.record, WaitForTask(task_id="t", reply_topic="inbox.c"), "w")
    repeated = step(waiting.record, task(alone=True), "d")
    assert isinstance(repeated, Emit)
    assert published(repeated, RunTask)


def test_a_delegated_attempt_is_not_its_outcome() -> None:
    dispatched = saved(None, task(alone=True), "d")
    handed_on = AttemptOutcome(task_id="t", attempt_id="a", attempt=1, outcome="completed", delegated=True)
    assert saved(dispatched.record, handed_on, "o").record.open


def test_a_timer_of_an_older_attempt_changes_nothing() -> None:
    waiting = saved(None, failed(0, options=RETRIED), "f").record
    assert waiting.status == "waiting-retry"
    old = TaskTimerFired(task_id="t", generation=0, attempt=1, due_at=9_000, task=task(options=RETRIED))
    assert step(waiting, old, "old", at=9_000) == Discard("stale-attempt")
    due = TaskTimerFired(task_id="t", generation=0, attempt=2, due_at=9_000, task=task(options=RETRIED))
    assert published(saved(waiting, due, "due", at=9_000), RunTask)


def test_a_worker_is_told_that_its_attempt_timed_out_and_only_once() -> None:
    record = saved(None, task(options=RETRIED), "d", waited=True).record
    beat = AttemptHeartbeat(task_id="t", attempt_id="a", attempt=1, generation=0, inbox="inbox.w")
    running = saved(record, beat, "h").record
    late = TaskTimerFired(task_id="t", generation=0, attempt=1, due_at=5_000, task=task(options=RETRIED))
    timed_out = saved(running, late, "late", at=5_000)
    assert "inbox.w" in [topic for topic, _ in timed_out.effects]
    retry = TaskTimerFired(task_id="t", generation=0, attempt=2, due_at=9_000, task=task(options=RETRIED))
    assert "inbox.w" not in [topic for topic, _ in saved(timed_out.record, retry, "r", at=9_000).effects]
