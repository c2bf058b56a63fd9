"""Reset: everything from a position on is done anew; and what a rewind leaves and takes back of ends and children."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_schemas.common import Completion, RunOptions
from perdure_schemas.events import Rewound, RunEnded
from perdure_schemas.messages import (
    CancelTask,
    CancelTimer,
    RunTask,
    ScheduleTimer,
    StartWorkflow,
    TimerFired,
)
from tests.core.workflow_case import (
    COMPLETED,
    Case,
    control,
    failed_after,
    failing,
    resume,
    task_outcome,
    timer_fired,
)

HOUR = 3_600_000


def test_a_reset_does_everything_from_the_position_on_anew_and_cancels_what_is_open() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a))
    reaction = case.send(resume(position="a"))
    assert [task.task_id for task in reaction.sent(CancelTask)] == [b.id]
    assert case.asked().adoptable == []
    again = case.command("a")
    assert again.id != a.id
    assert [task.task_id for task in case.turn(again).sent(RunTask)] == [again.id]


@pytest.mark.parametrize("how", ["terminate", "complete"])
def test_a_reset_of_an_ended_run_dispatches_again_what_its_end_canceled(how: str) -> None:
    case = Case()
    case.start()
    a, b, timer = case.command("a"), case.command("b"), case.command("t", "timer", due_at=case.now + HOUR)
    case.turn(a, b, timer)
    case.send(task_outcome(case, a))
    case.turn(case.command("c"), waits=None)
    case.send(task_outcome(case, case.known("c")))
    reaction = case.turn(completion=COMPLETED) if how == "complete" else case.send(control("terminate"))
    assert [task.task_id for task in reaction.sent(CancelTask)] == [b.id]
    reset = case.send(resume(position="c"))
    assert [(task.name, task.generation) for task in reset.sent(RunTask)] == [("b", 1)]
    (armed,) = reset.sent(ScheduleTimer)
    assert [fired.command_id for fired in [armed.fires] if isinstance(fired, TimerFired)] == [timer.id]
    (canceled,) = reaction.sent(CancelTimer)
    assert armed.timer_id != canceled.timer_id, "the cancel may come once more"
    assert case.state.status == "running"
    end = case.send(control("terminate"))
    assert [cancel.timer_id for cancel in end.sent(CancelTimer)] == [armed.timer_id]


@pytest.mark.parametrize("how", ["workflow", "end", "reset"])
def test_a_cancel_of_a_timer_names_the_one_that_was_armed(how: str) -> None:
    case = Case()
    case.start()
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a))
    timer = case.command("t", "timer", due_at=case.now + HOUR)
    (armed,) = case.turn(timer, case.command("b")).sent(ScheduleTimer)
    if how == "workflow":
        case.send(task_outcome(case, case.known("b")))
        reaction = case.turn(case.command("x", "cancel", target=timer.id), case.command("c"))
    else:
        reaction = case.send(control("terminate") if how == "end" else resume(position="t"))
    assert [cancel.timer_id for cancel in reaction.sent(CancelTimer) if cancel.timer_id == armed.timer_id]


def test_a_reset_of_a_canceled_run_takes_back_the_cancel() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(control("cancel"))
    case.turn(completion=Completion(status="canceled"))
    assert case.state.ended is not None
    case.send(resume(position="a"))
    assert case.state.canceled is None
    assert case.state.ended is None
    assert isinstance(case.send(control("cancel")).decision, d.Record)


def test_a_resumed_run_has_its_time_out_anew_and_is_not_purged() -> None:
    case = failed_after(options=RunOptions(run_timeout_ms=HOUR))
    old_timeout, old_retention = timer_fired(case, "run-timeout"), timer_fired(case, "retention", due_at=10**15)
    reaction = case.send(resume())
    (schedule,) = reaction.sent(ScheduleTimer)
    assert schedule.due_at == case.now + HOUR
    assert len(reaction.sent(CancelTimer)) == 1
    assert isinstance(case.send(old_timeout).decision, d.Discard)
    assert isinstance(case.send(old_retention).decision, d.Discard)
    assert isinstance(case.send(timer_fired(case, "run-timeout")).events[0], RunEnded)


def test_what_a_dropped_turn_canceled_runs_again_and_a_repetition_of_that_turn_spares_it() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, b, "failed"))
    turn = case.turn(case.command("x", "cancel", target=a.id), completion=failing(b))
    assert len(turn.sent(CancelTask)) == 1
    nonce = case.history[-1].cause
    assert {task.name for task in case.send(resume()).sent(RunTask)} == {"a", "b"}
    again = case.send(task_outcome(case, a), id=nonce)  # the turn's message comes once more
    assert isinstance(again.decision, d.AlreadyRecorded)
    assert again.sent(CancelTask) == []


def test_resume_twice_counts_generations() -> None:
    case = failed_after()
    case.send(resume())
    case.send(task_outcome(case, case.known("a"), "failed", generation=1))
    case.turn(completion=failing(case.known("a")))
    reaction = case.send(resume())
    assert isinstance(reaction.events[0], Rewound)
    assert reaction.events[0].generation == 2
    assert [task.generation for task in reaction.sent(RunTask)] == [2]


def test_a_child_started_again_by_its_parent_is_asked_with_its_generation() -> None:
    case = Case()
    case.start()
    child = case.command("k", "child", child_id="kid")
    case.turn(child)
    case.send(task_outcome(case, child, "failed"))
    case.turn(completion=failing(child))
    (start,) = case.send(resume()).sent(StartWorkflow)
    assert start.parent is not None
    assert start.parent.generation == 1
