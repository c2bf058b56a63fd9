"""The rules of the engine protocol that concern tasks and timers, each by its number.

Rule 21 is the worker's too (tests/sdk/worker); rules 2, 22 and 23 are also told with the driver (tests/runtime).
"""

from __future__ import annotations

import msgspec
import pytest

from perdure_core.task_engine.authority import Mark, judge
from perdure_core.task_engine.decisions import Ask, Authority, Discard, Emit, Hold, Save
from perdure_core.task_engine.effects import timer
from perdure_core.task_engine.transitions import RECORD_TTL_MS
from perdure_schemas import topics
from perdure_schemas.common import NULL, Address, TaskOptions
from perdure_schemas.messages import CancelTimer, RunTask, ScheduleTimer, TaskMessage, TaskOutcome
from tests.core.task_engine.samples import (
    OPEN,
    RETRY,
    SETTLED,
    TWICE,
    VALUE,
    cancel,
    fired,
    outcome,
    published,
    saved,
    started,
    step,
    supervised,
    task,
    told,
)

OWN = Address(topics.TASK_ENGINE, "t")
CLOSED = [Authority(state="settled", outcome="completed"), Authority(state="ended"), Authority(state="gone")]
FIRST_OF_A_RECORD: list[TaskMessage] = [
    task(),
    outcome("failed", of=task(options=TWICE)),
    outcome("completed", of=task(), delegated=True),
    started(of=task()),
]


def test_rule_3_a_repetition_publishes_what_the_record_says_whatever_the_message_does() -> None:
    dispatched = saved(None, task(alone=True), "d")
    other = msgspec.structs.replace(task(alone=True), args=VALUE)
    repeated = step(dispatched.record, other, "d")
    assert [run.args for run in published(repeated, RunTask)] == [NULL]


def test_rule_4_a_repetition_does_not_publish_an_attempt_whose_outcome_is_recorded() -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    queued = saved(waiting, fired(9_000, 2, of=task(options=TWICE)), "due", at=9_000)
    assert published(queued, RunTask)
    assert isinstance(step(queued.record, fired(9_000, 2, of=task()), "due", at=9_000, authority=None), Ask)
    closed = saved(queued.record, fired(9_000, 2, of=task()), "due", at=9_000, authority=SETTLED)
    assert not published(closed, RunTask)
    assert not closed.record.open


def test_rule_20_a_closed_record_outlives_every_message() -> None:
    broker_ttl_ms, longest_redelivery_ms = 14 * 86_400_000, 86_400_000
    assert broker_ttl_ms + longest_redelivery_ms < RECORD_TTL_MS
    assert saved(supervised(alone=True), outcome("completed"), "o").ttl_ms == RECORD_TTL_MS
    assert saved(None, task(alone=True), "d").ttl_ms is None


@pytest.mark.parametrize("message", FIRST_OF_A_RECORD)
def test_rule_22_no_record_without_asking_the_history(message: TaskMessage) -> None:
    assert isinstance(step(None, message, "m", waited=True, authority=None), Ask)
    assert isinstance(step(None, message, "m", waited=True, authority=OPEN), Save)


@pytest.mark.parametrize("against", CLOSED)
@pytest.mark.parametrize("message", FIRST_OF_A_RECORD)
def test_rule_22_no_record_against_the_history(message: TaskMessage, against: Authority) -> None:
    refused = step(None, message, "m", waited=True, authority=against)
    assert isinstance(refused, Discard)
    assert not published(refused, RunTask)


@pytest.mark.parametrize("against", CLOSED)
def test_rule_22_no_attempt_after_an_outcome(against: Authority) -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    due = fired(9_000, 2, of=task(options=TWICE))
    for message in (due, RETRY):
        closed = saved(waiting, message, "m", at=9_000, authority=against)
        assert not closed.record.open
        assert closed.record.closed, "the run knows: nothing is told it"
        assert not published(closed, RunTask)
        assert not published(closed, TaskOutcome)


@pytest.mark.parametrize("alone", [False, True])
def test_rule_21_a_worker_tells_the_authority_first(alone: bool) -> None:
    again = saved(supervised(alone=alone), RETRY, "r")
    (run,) = published(again, RunTask)
    told_first, told_next = run.answer_to
    assert (told_first if alone else told_next) == OWN


def test_rule_22_a_stand_alone_task_is_its_own_authority_and_its_outcome_is_kept() -> None:
    dispatched = saved(None, task(alone=True), "d", authority=None)
    assert published(dispatched, RunTask)
    done = saved(dispatched.record, outcome("completed"), "o", authority=None)
    assert done.record.result is not None
    assert not done.record.closed


def test_rule_23_a_dispatch_is_held_and_a_success_without_record_forgotten() -> None:
    assert step(None, task(), "d") == Hold()
    assert step(None, outcome("completed"), "o") == Hold()
    assert isinstance(step(None, outcome("completed"), "o", waited=True), Discard)


def test_rule_23_a_success_closes_the_record() -> None:
    done = saved(supervised(), outcome("completed"), "o")
    assert done.record.status == "completed"
    assert told(done) == []


@pytest.mark.parametrize("options", [TaskOptions(), TaskOptions(total_timeout_ms=10_000)])
def test_rule_24_every_open_record_has_a_timer_confirmed_before_it(options: TaskOptions) -> None:
    first = saved(None, task(options=options), "d", waited=True)
    ((topic, message),) = first.before
    assert topic == topics.TIMERS
    assert isinstance(message.body, ScheduleTimer)
    assert message.body.due_at > 1_000


def test_rule_24_a_stand_alone_task_has_one_again_whenever_its_dispatch_comes_again() -> None:
    dispatched = saved(None, task(alone=True, options=TaskOptions(attempt_timeout_ms=500)), "d")
    assert [timer.due_at for timer in published(dispatched, ScheduleTimer)] == [1_500]
    repeated = step(dispatched.record, task(alone=True), "d")
    assert isinstance(repeated, Emit)
    assert [timer.due_at for timer in published(repeated, ScheduleTimer)] == [1_500]


def test_rule_25_a_timer_without_record_makes_one_as_the_history_says() -> None:
    timer = fired(9_000, of=task())
    assert isinstance(step(None, timer, "t", at=9_000, authority=None), Ask)
    alive = saved(None, timer, "t", at=9_000)
    assert alive.record.open
    assert alive.before
    assert not saved(None, timer, "t", at=9_000, authority=SETTLED).record.open


def test_rule_25_the_timer_of_a_retry_without_record_dispatches_it() -> None:
    """Who failed the attempt before published the timer, and slept before it saved the record."""
    retry = saved(None, fired(9_000, 2, of=task(options=TWICE)), "t", at=9_000)
    assert [run.attempt for run in published(retry, RunTask)] == [2]
    assert isinstance(step(retry.record, outcome("failed", of=task(options=TWICE)), "f"), Discard)


def test_rule_25_a_timer_of_a_newer_dispatch_makes_its_record_in_the_place_of_the_old() -> None:
    old = saved(None, outcome("failed", of=task()), "f").record
    newer = saved(old, fired(9_000, of=task(1)), "t", at=9_000)
    assert (newer.record.generation, newer.record.open) == (1, True)
    assert newer.record.version == old.version + 1


def test_rule_26_the_last_transition_s_message_publishes_its_effects_again() -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    due = fired(9_000, 2, of=task(options=TWICE))
    queued = saved(waiting, due, "due", at=9_000)
    repeated = step(queued.record, due, "due", at=9_000)
    assert isinstance(repeated, Emit)
    assert [run.attempt for run in published(repeated, RunTask)] == [2]
    assert repeated.effects == queued.effects


def test_rule_26_other_stale_attempts_are_ignored() -> None:
    waiting = saved(None, outcome("failed", of=task(options=TWICE)), "f").record
    assert isinstance(step(waiting, outcome("failed"), "again"), Discard)
    assert isinstance(step(waiting, started(), "late"), Discard)
    assert step(waiting, fired(9_000, of=task()), "old", at=9_000) == Discard("stale-attempt")


def test_rule_27_a_failure_without_record_makes_one() -> None:
    failed = saved(None, outcome("failed", of=task(options=TWICE)), "f")
    assert failed.record.status == "waiting-retry"
    final = saved(None, outcome("failed", of=task()), "f")
    assert [told.outcome for told in published(final, TaskOutcome)] == ["failed"]


def test_rule_27_a_cancel_without_record_answers_at_once_and_waits_for_its_dispatch() -> None:
    canceled = saved(None, cancel(by_workflow=True), "c")
    assert [told.outcome for told in published(canceled, TaskOutcome)] == ["canceled"]
    assert not published(saved(canceled.record, task(), "d", waited=True), RunTask)


def test_rule_28_the_task_engine_only_proposes_and_takes_the_first_it_hears_of() -> None:
    """Both went to the run: the worker's success and this engine's word. What the history has first, counts there."""
    canceled = saved(supervised(), cancel(), "c")
    assert [told.outcome for told in published(canceled, TaskOutcome)] == ["canceled"]
    assert isinstance(step(canceled.record, outcome("completed"), "o"), Discard)
    done = saved(supervised(), outcome("completed"), "o")
    refused = step(done.record, cancel(by_workflow=True), "c")
    assert isinstance(refused, Discard)
    assert not published(refused, TaskOutcome)


def test_rule_31_a_failure_of_an_older_generation_is_discarded() -> None:
    resumed = saved(None, task(1, options=TWICE), "d", waited=True).record
    assert isinstance(step(resumed, outcome("failed", of=task(0)), "f"), Discard)


def test_rule_31_a_success_of_any_generation_counts() -> None:
    resumed = saved(None, task(1, options=TWICE), "d", waited=True).record
    assert saved(resumed, outcome("completed", generation=0), "o").record.status == "completed"
    older = supervised(options=TWICE)
    assert saved(older, outcome("completed", generation=1), "o").record.status == "completed"


def test_rule_31_a_success_from_before_a_rewind_is_told_again() -> None:
    """When its worker told the run, that had another outcome, which the rewind undid since."""
    resumed = saved(None, task(1, options=TWICE), "d", waited=True).record
    late = saved(resumed, outcome("completed", generation=0), "o")
    assert [(told.outcome, told.generation) for told in published(late, TaskOutcome)] == [("completed", 1)]
    assert not published(saved(resumed, outcome("completed", generation=1), "o"), TaskOutcome)


def test_rule_31_what_a_rewind_dispatched_anew_is_no_more_the_old_dispatch_s() -> None:
    found = [
        Mark(seq=2, kind="issued"),
        Mark(seq=3, kind="settled", outcome="failed"),
        Mark(seq=5, kind="rewound", to_seq=2, generation=1),
    ]
    assert judge("a", found, 0).state == "gone"
    assert judge("a", found, 1).state == "open"


def test_rule_24_the_watches_of_two_attempts_are_two_timers() -> None:
    """A late ScheduleTimer of the first overwrote the second's, and its record stayed open (found by simulation)."""
    first = supervised()
    second = msgspec.structs.replace(first, attempt=2, version=first.version + 1)
    timers = [timer(record, 3_600_000)[1].body for record in (first, second)]
    assert len({body.timer_id for body in timers if isinstance(body, ScheduleTimer)}) == 2


def test_rule_24_timers_far_ahead_go_with_their_attempt_and_are_never_those_of_the_current_one() -> None:
    year_ms = 365 * 86_400_000
    options = msgspec.structs.replace(TWICE, total_timeout_ms=year_ms)
    waiting = saved(None, outcome("failed", of=task(options=options)), "f")
    queued = saved(waiting.record, fired(9_000, 2, of=task(options=options)), "due", at=9_000)
    assert not published(waiting, CancelTimer)
    assert not published(queued, CancelTimer), "its time-out is what it is watched by"
    (set_for_it,) = [body for _, message in queued.before if isinstance(body := message.body, ScheduleTimer)]
    off = [CancelTimer(timer_id=set_for_it.timer_id, due_at=set_for_it.due_at)]
    done = saved(queued.record, outcome("completed"), "o", at=9_001)
    assert published(done, CancelTimer) == off
    assert published(step(done.record, outcome("completed"), "o", at=9_001), CancelTimer) == off


def test_rule_31_a_skip_that_is_taken_back_dispatches_anew() -> None:
    found = [
        Mark(seq=2, kind="issued"),
        Mark(seq=3, kind="settled", outcome="skipped"),
        Mark(seq=5, kind="rewound", to_seq=2, generation=1, taken_back=("a",)),
    ]
    assert judge("a", found, 0).state == "gone"
    assert judge("a", found, 1).state == "open"
    assert judge("b", found, 1).state == "settled"
