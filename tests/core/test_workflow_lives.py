"""Starts, signals, children, pauses, stuck turns and ends: what a run promises those it deals with."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.control import CHILD_START_MAX_MS
from perdure_core.workflow_engine.effects import TURN_RETRY_INITIAL_MS, TURN_RETRY_MAX_MS
from perdure_core.workflow_engine.signals import GAP_MAX_MS
from perdure_schemas.common import ClosePolicy, Command, Failure, Parent
from perdure_schemas.events import RunEnded, SignalReceived, Started, Stuck
from perdure_schemas.messages import (
    CancelTask,
    ChildOutcome,
    ControlRun,
    RunResult,
    RunTask,
    RunWorkflowTask,
    ScheduleTimer,
    StartWorkflow,
    TimerFired,
    TimerKind,
    WaitForResult,
)
from tests.core.workflow_case import (
    COMPLETED,
    INBOX,
    WORKFLOW_ID,
    Case,
    completed,
    continuing,
    control,
    failing,
    signal,
    start,
    task_outcome,
    timer_fired,
)

PARENT = Parent(workflow_id="p", run_id="pr", command_id="pc", generation=0)
RETENTION_OVER = 10**15


def continued(*signals: int, parent: Parent | None = None) -> tuple[Case, StartWorkflow]:
    """A run that got these signals and continued as a new one; the start of that one."""
    case = Case()
    case.start(parent=parent)
    for number in signals:
        case.send(signal(number))
    (next_start,) = case.turn(completion=continuing(*range(2, 2 + len(signals)))).sent(StartWorkflow)
    return case, next_start


# --- continue-as-new -----------------------------------------------------------------------------


def test_signals_nobody_received_move_on_under_their_own_causes() -> None:
    case, next_start = continued(1, 2)
    reaction = case.send(next_start)
    assert [type(event) for event in reaction.events] == [Started, SignalReceived, SignalReceived]
    assert [recorded.cause for recorded in reaction.recorded[1:]] == [recorded.cause for recorded in next_start.signals]


def test_no_other_start_slips_in_between() -> None:
    case, next_start = continued()
    assert isinstance(case.send(start(run_id="r9")).decision, d.Later)
    assert isinstance(case.send(next_start).decision, d.Record)
    assert isinstance(case.send(start(run_id="r9")).decision, d.Discard)


def test_the_chain_goes_by_its_first_run_too() -> None:
    case, next_start = continued(parent=PARENT)
    started = case.send(next_start).events[0]
    assert isinstance(started, Started)
    assert started.first_run_id == "r1"
    assert isinstance(case.send(signal(1, run_id="r1")).decision, d.Record)
    assert isinstance(case.send(control("cancel", run_id="r1", actor="parent")).decision, d.Record)
    assert case.send(control("pause", run_id="r7")).recorded == []
    reaction = case.turn(completion=COMPLETED)
    assert reaction.decision.__class__ is d.Record
    assert [outcome.outcome for outcome in reaction.sent(ChildOutcome)] == ["completed"]


def test_whoever_waits_for_the_next_run_waits_for_its_start() -> None:
    case, next_start = continued()
    wait = WaitForResult(workflow_id=WORKFLOW_ID, run_id=next_start.run_id, reply_topic=INBOX)
    assert isinstance(case.send(wait).decision, d.Later)
    case.send(next_start)
    assert isinstance(case.send(wait).decision, d.AwaitEnd)


# --- runs one after the other --------------------------------------------------------------------


def test_the_end_of_an_earlier_run_is_told() -> None:
    case = Case()
    case.start(run_id="r1")
    case.turn(completion=COMPLETED)
    case.start(run_id="r2")
    reaction = case.send(WaitForResult(workflow_id=WORKFLOW_ID, run_id="r1", reply_topic=INBOX))
    assert [result.status for result in reaction.sent(RunResult)] == ["completed"]
    reaction = case.send(WaitForResult(workflow_id=WORKFLOW_ID, run_id="r0", reply_topic=INBOX))
    assert [result.status for result in reaction.sent(RunResult)] == ["not-found"]


def test_an_earlier_run_is_purged_when_its_time_is_over() -> None:
    case = Case()
    case.start(run_id="r1")
    case.turn(completion=COMPLETED)
    purge = timer_fired(case, "retention", due_at=RETENTION_OVER)
    case.start(run_id="r2")
    assert case.send(purge).decision == d.Purge("r1")
    assert case.state.run_id == "r2"


def test_an_earlier_run_is_purged_after_the_last_one_too() -> None:
    case = Case()
    case.start(run_id="r1")
    case.turn(completion=COMPLETED)
    first = timer_fired(case, "retention", due_at=RETENTION_OVER)
    case.start(run_id="r2")
    case.turn(completion=COMPLETED)
    assert case.send(timer_fired(case, "retention", due_at=RETENTION_OVER)).decision == d.Purge("r2")
    assert case.send(first).decision == d.Purge("r1")


def test_what_is_meant_for_a_purged_run_awaits_no_other() -> None:
    case = Case(purged=True)
    for body in (signal(1, run_id="r1"), control("cancel", run_id="r1", actor="parent")):
        assert isinstance(case.send(body).decision, d.Discard)
    assert isinstance(case.send(signal(1)).decision, d.Record)


def test_a_sender_that_counts_on_is_not_kept_waiting_by_a_later_run() -> None:
    case = Case()
    case.start(run_id="r1")
    case.send(signal(1))
    case.turn(completion=COMPLETED)
    case.start(run_id="r2")
    assert isinstance(case.send(signal(2, after=1)).decision, d.Record)


def test_a_signal_whose_predecessor_never_comes_is_recorded_after_a_minute() -> None:
    case = Case()
    case.start()
    late = case.message(signal(2, after=1))
    assert isinstance(case.decide(late), d.Later)
    case.now = late.at + GAP_MAX_MS
    assert isinstance(case.decide(late), d.Record)


def test_signals_of_one_sender_are_recorded_in_its_order() -> None:
    case = Case()
    case.start()
    first, second = case.message(signal(1)), case.message(signal(2, after=1))
    assert isinstance(case.deliver(second).decision, d.Later)
    case.deliver(first)
    case.deliver(second)
    assert [recorded.cause for recorded in case.history[1:]] == [first.id, second.id]


def test_signals_that_overtook_their_start_keep_their_sender_s_order() -> None:
    case = Case()
    first, second = case.message(signal(1)), case.message(signal(2, after=1))
    assert isinstance(case.deliver(second).decision, d.Later)
    case.deliver(first)
    case.deliver(second)
    case.start()
    assert [recorded.cause for recorded in case.history[1:]] == [first.id, second.id]


# --- children ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["abandon", "cancel", "terminate"])
@pytest.mark.parametrize("end", ["complete", "fail", "terminate", "time out"])
def test_a_child_follows_its_close_policy(policy: ClosePolicy, end: str) -> None:
    """A failed run can be resumed: what it started goes on, until it is terminated."""
    case = Case()
    case.start()
    case.turn(case.command("k", "child", child_id="kid", close_policy=policy))
    if end in ("complete", "fail"):
        case.send(signal(1))
        reaction = case.turn(completion=COMPLETED if end == "complete" else failing())
    elif end == "terminate":
        reaction = case.send(control("terminate"))
    else:
        reaction = case.send(timer_fired(case, "run-timeout"))
    told = [] if policy == "abandon" or end == "fail" else [policy]
    assert [closed.action for closed in reaction.sent(ControlRun)] == told
    if end == "fail":
        terminated = case.send(control("terminate")).sent(ControlRun)
        assert [closed.action for closed in terminated] == ([] if policy == "abandon" else [policy])


def test_a_child_of_the_last_turn_is_started_only_if_it_outlives_the_run() -> None:
    case = Case()
    case.start()
    commands = [case.command("a", "child", close_policy="abandon"), case.command("b", "child"), case.command("c")]
    reaction = case.turn(*commands, completion=COMPLETED)
    assert [child.name for child in reaction.sent(StartWorkflow)] == ["a"]
    assert reaction.sent(RunTask) == []
    assert reaction.sent(ControlRun) == []
    assert reaction.sent(CancelTask) == []


def again(generation: int) -> StartWorkflow:
    return start(run_id="r1", parent=replace(PARENT, generation=generation))


def child_that_ended(end: str) -> Case:
    case = Case()
    case.start(parent=PARENT)
    if end == "failed":
        case.turn(case.command("a"))
        case.send(task_outcome(case, case.known("a"), "failed"))
        case.turn(completion=failing(case.known("a")))
    elif end == "completed":
        case.turn(completion=COMPLETED)
    elif end == "terminated":
        case.send(control("terminate"))
    return case


def test_a_failed_child_its_parent_asks_for_again_is_resumed() -> None:
    case = child_that_ended("failed")
    message = case.message(again(1))
    reaction = case.deliver(message)
    assert [task.name for task in reaction.sent(RunTask)] == ["a"]
    assert reaction.sent(ChildOutcome) == []
    assert isinstance(case.deliver(message).decision, d.AlreadyRecorded)
    assert case.state.generation == 1


@pytest.mark.parametrize(("end", "outcome"), [("completed", "completed"), ("terminated", "canceled")])
def test_a_child_that_ended_otherwise_tells_its_parent_again(end: str, outcome: str) -> None:
    case = child_that_ended(end)
    first = case.deliver(case.message(again(0))).sent(ChildOutcome)
    assert first == []
    told = case.send(again(1)).sent(ChildOutcome)
    assert [(told.outcome, told.generation) for told in told] == [(outcome, 1)]


def test_a_child_that_runs_goes_on_when_asked_again() -> None:
    case = child_that_ended("not")
    assert case.send(again(1)).recorded == []


@pytest.mark.parametrize(
    ("end", "outcome"), [("completed", "completed"), ("failed", "failed"), ("terminated", "canceled")]
)
@pytest.mark.parametrize("since", ["ended", "open"])
def test_a_child_whose_id_has_had_another_run_since_tells_its_end_once_more(end: str, outcome: str, since: str) -> None:
    case = child_that_ended(end)
    case.start(run_id="by-hand")
    if since == "ended":
        case.turn(completion=COMPLETED)
    reaction = case.send(again(1))
    assert (reaction.decision, reaction.recorded) == (d.FindEnd("r1"), [])
    assert [(told.outcome, told.generation) for told in reaction.sent(ChildOutcome)] == [(outcome, 1)]


def test_a_start_of_an_earlier_run_that_comes_again_begins_nothing_after_the_last_one_was_purged() -> None:
    case = Case()
    begin = case.message(start(run_id="r1"))
    case.deliver(begin)
    case.turn(completion=COMPLETED)
    case.start(run_id="r2")
    case.turn(completion=COMPLETED)
    case.send(timer_fired(case, "retention", due_at=RETENTION_OVER))
    reaction = case.deliver(begin)
    assert (reaction.decision, reaction.recorded) == (d.FindEnd("r1"), [])


@pytest.mark.parametrize("why", ["open run", "purged"])
def test_a_parent_hears_that_its_child_is_not_started(why: str) -> None:
    case = Case(purged=why == "purged")
    if why == "open run":
        case.start(run_id="r0")
    reaction = case.send(start(run_id="r1", parent=PARENT, conflict_policy="use-existing"))
    (outcome,) = reaction.sent(ChildOutcome)
    assert outcome.outcome == "failed"
    assert "use-existing" not in str(outcome), "a child is never an open run of somebody else's"


def test_a_parent_that_starts_a_refused_child_again_is_answered_again() -> None:
    case = Case()
    case.start(run_id="r0")
    first = case.deliver(case.message(start(run_id="r1", parent=PARENT), id="start-0"))
    second = case.deliver(case.message(start(run_id="r1", parent=replace(PARENT, generation=1)), id="start-1"))
    (one,) = (id for name, id in first.keys if name == "ChildOutcome")
    (other,) = (id for name, id in second.keys if name == "ChildOutcome")
    assert one != other


def test_a_cancel_by_the_parent_waits_for_a_child_under_an_id_that_was_used_before() -> None:
    case = Case()
    case.start(run_id="r0")
    case.turn(completion=COMPLETED)
    cancel = case.message(control("cancel", run_id="r1", actor="parent"))
    assert isinstance(case.decide(cancel), d.Later)
    case.start(run_id="r1", parent=PARENT)
    assert isinstance(case.decide(cancel), d.Record)
    other = case.message(control("cancel", run_id="r7", actor="parent"))
    case.now += CHILD_START_MAX_MS
    assert isinstance(case.decide(other), d.Discard)


def test_an_end_by_the_parent_that_overtakes_the_child_s_start_waits_for_it() -> None:
    case = Case()
    terminate = case.message(control("terminate", run_id="r1", actor="parent"))
    assert isinstance(case.decide(terminate), d.Later)
    case.start(run_id="r1", parent=PARENT)
    assert isinstance(case.decide(terminate), d.Record)


# --- pause, stuck, move --------------------------------------------------------------------------


def test_a_paused_run_takes_no_turn_until_unpaused() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(control("pause"))
    assert case.send(task_outcome(case, case.known("a"))).sent(RunWorkflowTask) == []
    assert len(case.send(control("unpause")).sent(RunWorkflowTask)) == 1


def test_a_stuck_turn_is_tried_again_after_a_pause() -> None:
    case = Case()
    case.start()
    case.fail_turn()
    case.send(control("pause"))
    assert isinstance(case.send(timer_fired(case, "turn")).decision, d.Discard)
    assert len(case.send(control("unpause")).sent(ScheduleTimer)) == 1


def test_a_stuck_turn_waits_longer_each_time_however_its_failures_differ() -> None:
    case = Case()
    case.start()
    waits = []
    for number in range(12):
        (schedule,) = case.fail_turn(Failure(name="KeyError", message=str(number))).sent(ScheduleTimer)
        waits.append(schedule.due_at - case.now)
    assert waits == [min(TURN_RETRY_MAX_MS, TURN_RETRY_INITIAL_MS * 2**number) for number in range(12)]


def test_the_same_failure_again_is_not_recorded_and_waits_longer() -> None:
    case = Case()
    case.start()
    first = case.fail_turn()
    (schedule,) = first.sent(ScheduleTimer)
    assert isinstance(schedule.fires, TimerFired)
    second = case.fail_turn(attempt=schedule.fires.attempt)
    assert second.recorded == []
    (later,) = second.sent(ScheduleTimer)
    assert later.due_at - case.now == 2 * TURN_RETRY_INITIAL_MS
    assert later.timer_id != schedule.timer_id


def test_a_turn_that_cannot_be_carried_out_makes_the_run_stuck() -> None:
    case = Case()
    case.start()
    good = case.command("a")
    for bad in (replace(good, args=None), replace(good, kind="timer")):
        reaction = case.turn(bad)
        assert [type(event) for event in reaction.events] == [Stuck]
    reaction = case.turn(good, good)
    assert isinstance(reaction.events[0], Stuck)
    assert isinstance(case.turn(good).decision, d.Record)


def test_a_turn_of_impossible_shape_is_discarded() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    turn = completed(case.asked())
    for bad in (replace(turn, base=-1), replace(turn, base=5, hashes=[]), replace(turn, committed=-3)):
        assert case.decide(case.message(bad)) == d.Discard("malformed")


def test_terminate_existing_ends_the_old_run_and_begins_the_new_one() -> None:
    case = Case()
    case.start(run_id="r1")
    reaction = case.send(start(run_id="r2", conflict_policy="terminate-existing"))
    assert [type(event) for event in reaction.events] == [RunEnded, Started]
    assert case.state.run_id == "r2"


def test_what_the_end_of_the_old_run_publishes_is_published_again_with_the_new_start() -> None:
    case = Case()
    case.start(run_id="r1", parent=PARENT)
    message = case.message(start(run_id="r2", conflict_policy="terminate-existing"))
    first = case.deliver(message)
    assert len(first.sent(RunResult)) > 0
    again = case.deliver(message)
    assert isinstance(again.decision, d.AlreadyRecorded)
    assert len(again.sent(RunResult)) == 1
    assert len(again.sent(ChildOutcome)) == 1


def test_a_message_with_no_run_id_ends_nothing_that_was_not_born() -> None:
    case = Case()
    case.send(signal(1))
    kinds: list[TimerKind] = ["run-timeout", "retention", "turn"]
    for kind in kinds:
        reaction = case.send(timer_fired(case, kind))
        assert reaction.recorded == []
    assert case.send(task_outcome(case, Command(id="x", position="x", kind="task"))).recorded == []
