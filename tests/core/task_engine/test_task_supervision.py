"""What supervision does in time: retries, time-outs, heartbeats, deaths, and what people change."""

from __future__ import annotations

import msgspec
import pytest

from perdure_core.task_engine.deadlines import WATCH_MAX_MS, WATCH_MS, next_deadline, next_watch
from perdure_core.task_engine.decisions import Decision, Discard, Save
from perdure_schemas.common import Payload, RetryPolicy, TaskOptions
from perdure_schemas.messages import RunTask, ScheduleTimer, TaskOutcome, TaskResult
from tests.core.task_engine.samples import (
    RETRY,
    SKIP,
    TWICE,
    VALUE,
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

MANY = RetryPolicy(attempts_max=0, initial_delay_ms=1_000, jitter=0.0)


def at_deadline(options: TaskOptions, *, running: bool = False) -> Save:
    """The decision at the next deadline of a task dispatched at 1,000."""
    record = supervised(options=options)
    if running:
        record = saved(record, started(), "s").record
    due_at, _ = next_deadline(record)
    return saved(record, fired(due_at, of=task(options=options)), "due", at=due_at)


# --- time-outs ------------------------------------------------------------------------------------


def test_the_queue_time_out_ends_the_task_whatever_its_retries() -> None:
    late = at_deadline(TaskOptions(retry=MANY, queue_timeout_ms=500))
    assert late.record.status == "timed-out"
    assert [told.outcome for told in published(late, TaskOutcome)] == ["timed-out"]


def test_the_queue_time_out_is_over_once_an_attempt_starts() -> None:
    options = TaskOptions(retry=MANY, queue_timeout_ms=500)
    running = saved(supervised(options=options), started(), "s", at=1_400).record
    assert saved(running, fired(1_500, of=task(options=options)), "due", at=1_500).record.status == "running"


@pytest.mark.parametrize(
    ("options", "running"),
    [
        (TaskOptions(retry=MANY, attempt_timeout_ms=500), False),
        (TaskOptions(retry=MANY, attempt_timeout_ms=500), True),
        (TaskOptions(retry=MANY, heartbeat_timeout_ms=500), True),
    ],
)
def test_a_time_out_of_an_attempt_is_retried(options: TaskOptions, running: bool) -> None:
    late = at_deadline(options, running=running)
    assert (late.record.status, late.record.attempt) == ("waiting-retry", 2)
    assert (WORKER in told(late)) is running
    assert not published(late, TaskOutcome)


def test_the_last_attempt_s_time_out_ends_the_task() -> None:
    assert at_deadline(TaskOptions(attempt_timeout_ms=500)).record.status == "timed-out"


def test_the_total_time_out_ends_the_task_whatever_its_retries() -> None:
    options = TaskOptions(retry=MANY, total_timeout_ms=1_500)
    waiting = saved(supervised(options=options), outcome("failed"), "f", at=1_800).record
    assert next_deadline(waiting) == (2_500, "total")
    late = saved(waiting, fired(2_500, 2, of=task(options=options)), "due", at=2_500)
    assert late.record.status == "timed-out"


def test_heartbeats_put_off_their_time_out_and_nothing_else() -> None:
    options = TaskOptions(retry=MANY, heartbeat_timeout_ms=500, attempt_timeout_ms=2_000)
    record = saved(supervised(options=options), started(), "s").record
    for beat_at in (1_300, 1_700, 2_100, 2_500, 2_900):
        record = saved(record, heartbeat(), f"h{beat_at}", at=beat_at).record
    assert record.progress == VALUE
    assert next_deadline(record) == (3_000, "attempt")
    early = saved(record, fired(1_500, of=task(options=options)), "early", at=2_950)
    assert early.record.status == "running"
    assert [timer.body.due_at for _, timer in early.before if isinstance(timer.body, ScheduleTimer)] == [3_000]


def test_a_first_heartbeat_is_watched_also_if_its_announcement_is_lost() -> None:
    beating = saved(supervised(options=TaskOptions(heartbeat_timeout_ms=500)), heartbeat(), "h")
    due = [timer.body.due_at for _, timer in beating.before if isinstance(timer.body, ScheduleTimer)]
    assert due == [1_500]
    assert beating.record.cause == "h", "if it comes again, the timer does"


def test_a_delegated_task_sends_no_heartbeats() -> None:
    record = saved(supervised(options=TaskOptions(heartbeat_timeout_ms=500)), started(), "s").record
    delegated = saved(record, outcome("completed", delegated=True), "g").record
    assert next_deadline(delegated)[1] == "watch"


def test_watches_of_a_task_are_one_chain_that_gets_rare() -> None:
    record = supervised()
    assert next_watch(record, 1_000) == next_watch(record, 1_700) == 1_000 + WATCH_MS
    dues = [1_000]
    while len(dues) < 10:
        dues.append(next_watch(record, dues[-1]))
    gaps = [(later - 1_000) / WATCH_MS for later in dues[1:]]
    assert gaps == [1, 2, 4, 8, 16, 24, 48, 72, 96]
    assert dues[-1] - dues[-2] == WATCH_MAX_MS


# --- retries --------------------------------------------------------------------------------------


def test_a_failed_attempt_is_retried_when_its_delay_is_over() -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f", at=5_000)
    assert waiting.record.retry_at == 5_100
    again = saved(waiting.record, fired(5_100, 2, of=task(options=TWICE)), "due", at=5_100)
    (run,) = published(again, RunTask)
    assert run.attempt == 2
    assert run.last_failure is not None
    ended = saved(again.record, outcome("failed", 2), "f2", at=6_000)
    assert [told.outcome for told in published(ended, TaskOutcome)] == ["failed"]


def test_three_deaths_fail_an_attempt_and_two_do_not() -> None:
    record = supervised(options=TWICE)
    third = saved(record, started(deliveries=3), "s3").record
    assert third.status == "running"
    fourth = saved(third, started(deliveries=4), "s4")
    assert fourth.record.status == "waiting-retry"
    assert fourth.record.failure is not None
    assert fourth.record.failure.name == "WorkerDied"
    assert WORKER in told(fourth), "who announced it must not run it"
    last = saved(supervised(), started(deliveries=4), "s").record
    assert last.status == "failed"


# --- people ---------------------------------------------------------------------------------------


def test_an_edited_retry_runs_with_the_new_arguments_now() -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    edited = Payload("json", b"[8]")
    again = saved(waiting, msgspec.structs.replace(RETRY, args=edited), "r")
    (run,) = published(again, RunTask)
    assert (run.args, run.attempt) == (edited, 2)
    policy_begins_anew = saved(again.record, outcome("failed", 2), "f2").record
    assert policy_begins_anew.status == "waiting-retry"


def test_a_retry_of_a_running_attempt_stops_it() -> None:
    running = saved(supervised(), started(), "s").record
    again = saved(running, RETRY, "r")
    assert WORKER in told(again)
    assert isinstance(step(again.record, outcome("failed", 1), "f"), Discard), "it is no news any more"


def outcomes(decision: Decision, alone: bool) -> list[tuple[str, Payload | None]]:
    """As the run or, of a stand-alone task, its starter is told."""
    if alone:
        return [(told.outcome, told.result) for told in published(decision, TaskResult)]
    return [(told.outcome, told.result) for told in published(decision, TaskOutcome)]


@pytest.mark.parametrize("alone", [False, True])
def test_a_skip_answers_instead_of_the_task(alone: bool) -> None:
    running = saved(supervised(alone=alone), started(), "s").record
    skipped = saved(running, SKIP, "k")
    assert WORKER in told(skipped)
    assert outcomes(skipped, alone) == [("skipped", VALUE)]


@pytest.mark.parametrize("alone", [False, True])
def test_a_cancel_reaches_the_worker_and_whoever_waits(alone: bool) -> None:
    running = saved(supervised(alone=alone), started(), "s").record
    canceled = saved(running, cancel(), "c")
    assert WORKER in told(canceled)
    assert [how for how, _ in outcomes(canceled, alone)] == ["canceled"]
    assert isinstance(step(canceled.record, outcome("canceled"), "o"), Discard)


def test_a_stand_alone_task_can_be_run_again_after_its_end_but_not_after_its_success() -> None:
    failed = saved(supervised(alone=True), outcome("failed"), "f").record
    assert published(saved(failed, RETRY, "r"), RunTask)
    done = saved(supervised(alone=True), outcome("completed"), "o").record
    assert isinstance(step(done, RETRY, "r"), Discard)


def test_a_delegated_task_ends_by_whoever_completes_it() -> None:
    delegated = saved(supervised(), outcome("completed", delegated=True), "g").record
    done = saved(delegated, msgspec.structs.replace(SKIP, outcome="completed"), "c")
    assert [(told.outcome, told.result) for told in published(done, TaskOutcome)] == [("completed", VALUE)]
