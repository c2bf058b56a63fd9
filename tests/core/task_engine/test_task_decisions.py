"""Schedules in which a supervised task was lost, doubled or left somebody without an answer, and must not be."""

from __future__ import annotations

import pytest

from perdure_core.task_engine.decisions import Ask, Authority, Discard, Emit, Hold, Save
from perdure_core.task_engine.people import WAITERS_MAX
from perdure_schemas import topics
from perdure_schemas.common import TaskOptions
from perdure_schemas.events import CommandSettled
from perdure_schemas.messages import (
    CommandReply,
    CompleteTask,
    DispatchTask,
    RunTask,
    TaskMessage,
    TaskOutcome,
    TaskResult,
    WaitForTask,
)
from tests.core.task_engine.samples import (
    ASKER,
    OPEN,
    RETRY,
    SETTLED,
    SKIP,
    TWICE,
    VALUE,
    WAIT,
    WORKER,
    cancel,
    fired,
    heartbeat,
    outcome,
    published,
    saved,
    started,
    step,
    supervised,
    task,
    told,
)


def test_a_resumed_task_that_fails_again_is_told_again() -> None:
    first = saved(None, outcome("failed", of=task()), "f0")
    again = saved(first.record, outcome("failed", generation=1, of=task(1)), "f1")
    assert [told.generation for told in published(again, TaskOutcome)] == [1]
    assert again.record.version == first.record.version + 1


def test_a_wait_keeps_the_dispatch_to_be_published_again() -> None:
    waiting = saved(supervised(alone=True), WAIT, "w")
    repeated = step(waiting.record, task(alone=True), "d")
    assert isinstance(repeated, Emit)
    assert published(repeated, RunTask)


def test_a_delegated_attempt_is_not_its_outcome() -> None:
    assert saved(supervised(alone=True), outcome("completed", delegated=True), "o").record.open


def test_a_worker_is_told_that_its_attempt_timed_out_and_only_once() -> None:
    options = TaskOptions(retry=TWICE.retry, attempt_timeout_ms=1_000)
    running = saved(supervised(options=options), heartbeat(), "h").record
    timed_out = saved(running, fired(5_000, of=task(options=options)), "late", at=5_000)
    assert WORKER in told(timed_out)
    retry = saved(timed_out.record, fired(9_000, 2, of=task(options=options)), "r", at=9_000)
    assert WORKER not in told(retry)


# --- repetitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [cancel(), CompleteTask(task_id="t", outcome="failed", reply_topic=ASKER)])
def test_what_ended_a_task_does_not_end_its_manual_retry_when_it_comes_again(message: TaskMessage) -> None:
    ended = saved(supervised(alone=True), message, "c").record
    again = saved(ended, RETRY, "r").record
    assert again.status == "queued"
    repeated = step(again, message, "c")
    assert isinstance(repeated, Emit)
    assert told(repeated) == [ASKER], "answered again, and the attempt in the queue is not published twice"
    assert published(repeated, CommandReply)[0].status == "ok"


def test_a_manual_retry_begins_anew_what_the_last_attempts_used_up() -> None:
    options = TaskOptions(total_timeout_ms=5_000)
    over = saved(supervised(alone=True, options=options), fired(6_000, of=task()), "t", at=6_000)
    again = saved(over.record, RETRY, "r", at=60_000).record
    early = step(again, fired(61_000, 2, of=task()), "t2", at=61_000)
    assert isinstance(early, Save)
    assert early.record.open


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [cancel(), RETRY, SKIP])
def test_a_command_for_an_unknown_task_waits_for_it_then_is_answered(message: TaskMessage) -> None:
    assert step(None, message, "c") == Hold()
    refused = step(None, message, "c", waited=True)
    assert isinstance(refused, Discard)
    assert [reply.status for reply in published(refused, CommandReply)] == ["not-found"]


def test_waiting_for_an_unknown_task_is_answered() -> None:
    assert step(None, WAIT, "w") == Hold()
    assert [r.outcome for r in published(step(None, WAIT, "w", waited=True), TaskResult)] == ["not-found"]


@pytest.mark.parametrize("message", [cancel(), RETRY, SKIP])
def test_a_command_for_a_settled_task_is_answered(message: TaskMessage) -> None:
    record = saved(supervised(alone=True), outcome("completed"), "o").record
    refused = step(record, message, "c")
    assert isinstance(refused, Discard)
    (reply,) = published(refused, CommandReply)
    assert (reply.status, reply.detail) == ("conflict", "the task has ended: completed")


def test_a_retry_after_the_history_settled_the_task_is_refused_and_supervision_ends() -> None:
    record = supervised()
    assert isinstance(step(record, RETRY, "r", authority=None), Ask)
    refused = saved(record, RETRY, "r", authority=SETTLED)
    assert not published(refused, RunTask)
    assert [reply.status for reply in published(refused, CommandReply)] == ["conflict"]
    assert refused.record.status == "completed"


def test_who_waits_for_a_task_of_a_workflow_is_told_when_its_worker_ended_it() -> None:
    waiting = saved(supervised(), WAIT, "w").record
    done = saved(waiting, outcome("completed"), "o")
    assert [result.result for result in published(done, TaskResult)] == [VALUE]
    assert topics.WORKFLOW_ENGINE not in told(done), "the worker told the run itself"


def test_who_waits_is_told_the_outcome_that_the_history_has() -> None:
    waiting = saved(supervised(), WAIT, "w").record
    asked = step(waiting, fired(9_999_999, of=task()), "f", at=9_999_999, authority=None)
    assert isinstance(asked, Ask)
    assert asked.wants_event
    event = CommandSettled(command_id="t", outcome="completed", result=VALUE)
    known = Authority(state="settled", outcome="completed", settled_seq=3, settled=event)
    closed = saved(waiting, fired(9_999_999, of=task()), "f", at=9_999_999, authority=known)
    assert [result.result for result in published(closed, TaskResult)] == [VALUE]


def test_who_waits_is_not_forgotten_when_a_rewind_dispatches_the_task_anew() -> None:
    waiting = saved(supervised(), WAIT, "w").record
    resumed = saved(waiting, task(1), "d1", waited=True).record
    done = saved(resumed, outcome("completed", generation=1), "o")
    assert [result.outcome for result in published(done, TaskResult)] == ["completed"]


def test_no_more_wait_than_a_record_can_hold() -> None:
    record = supervised()
    for number in range(WAITERS_MAX):
        record = saved(record, WaitForTask(task_id="t", reply_topic=f"inbox.{number}"), f"w{number}").record
    assert step(record, WAIT, "w") == Discard("too-many-waiters")


# --- stopping -------------------------------------------------------------------------------------


def test_a_worker_that_announces_a_canceled_attempt_is_told_to_stop() -> None:
    canceled = saved(None, cancel(by_workflow=True), "c").record
    dispatched = saved(canceled, task(), "d", waited=True).record
    late = step(dispatched, started(of=task()), "s")
    assert isinstance(late, Discard)
    assert told(late) == [WORKER]


def test_a_worker_that_announces_what_the_history_settled_is_told_to_stop() -> None:
    assert told(step(None, started(of=task()), "s", authority=SETTLED)) == [WORKER]


def test_a_cancel_after_a_rewind_reaches_the_attempt_that_went_on() -> None:
    running = saved(supervised(), started(), "s").record
    canceled = saved(running, cancel(by_workflow=True, generation=1), "c")
    assert canceled.record.status == "canceled"
    assert WORKER in told(canceled)
    assert step(canceled.record, task(1), "d1", waited=True) == Discard("duplicate"), "canceled before it came"


def test_a_cancel_of_a_resumed_task_waits_for_its_dispatch() -> None:
    failed = saved(None, outcome("failed", of=task()), "f").record
    canceled = saved(failed, cancel(by_workflow=True, generation=1), "c").record
    dispatched = saved(canceled, task(1), "d", waited=True)
    assert dispatched.record.status == "canceled"
    assert [outcome.outcome for outcome in published(dispatched, TaskOutcome)] == ["canceled"]


def test_a_cancel_from_before_a_rewind_leaves_the_new_attempt_alone() -> None:
    resumed = saved(None, outcome("failed", of=task()), "f").record
    resumed = saved(resumed, task(1, options=TWICE), "d", waited=True).record
    assert isinstance(step(resumed, cancel(by_workflow=True), "c"), Discard)


# --- odd input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [outcome("failed", 2), started(2), heartbeat(2)])
def test_an_attempt_that_was_not_dispatched_yet_changes_nothing(message: TaskMessage) -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    assert (waiting.status, waiting.attempt) == ("waiting-retry", 2)
    assert isinstance(step(waiting, message, "x"), Discard)


def test_fired_is_no_outcome_of_a_task() -> None:
    assert isinstance(step(supervised(), outcome("fired"), "o"), Discard)
    refused = step(supervised(), CompleteTask(task_id="t", outcome="fired", reply_topic=ASKER), "c")
    assert [reply.status for reply in published(refused, CommandReply)] == ["refused"]


def test_a_dispatch_of_an_older_generation_changes_nothing() -> None:
    record = saved(None, task(1), "d", waited=True).record
    old: DispatchTask = task(0)
    assert step(record, old, "o", waited=True, authority=OPEN) == Discard("duplicate")
