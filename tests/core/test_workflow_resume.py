"""Resume and reset: what is kept, what is done again, what is canceled."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_schemas.common import NULL, Command, Completion, Payload, RunOptions
from perdure_schemas.events import CommandSettled, Edit, Rewound, RunEnded
from perdure_schemas.messages import (
    CancelTask,
    CancelTimer,
    CommandReply,
    RunTask,
    RunWorkflowTask,
    ScheduleTimer,
    SendSignal,
    StartWorkflow,
    TimerFired,
)
from tests.core.workflow_case import (
    COMPLETED,
    Case,
    control,
    failing,
    resume,
    task_outcome,
    timer_fired,
)

HOUR = 3_600_000


def failed_after(*dropped: Command, options: RunOptions | None = None) -> Case:
    """Task `a` failed; the turn that saw it issued `dropped` and ended the run."""
    case = Case()
    case.start(options=options)
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    case.turn(*dropped, completion=failing(a))
    return case


def running_when_dropped() -> tuple[Case, Command]:
    """Task `b` was issued by a turn that a resume then dropped, and is still running."""
    case = failed_after(failed_after().command("b"))
    b = next(known.command for known in case.state.commands.values() if known.command.position == "b")
    case.send(resume())
    return case, b


def test_an_outcome_that_comes_before_its_command_is_adopted_counts_when_it_is() -> None:
    case, b = running_when_dropped()
    assert len(case.send(task_outcome(case, b, generation=0)).events) == 1
    assert b.id not in case.state.commands
    case.send(task_outcome(case, case.known("a"), generation=1))
    reaction = case.turn(b)
    settled = [event for event in reaction.events if isinstance(event, CommandSettled)]
    assert [(event.command_id, event.outcome) for event in settled] == [(b.id, "completed")]
    assert reaction.sent(RunTask) == []
    assert len(reaction.sent(RunWorkflowTask)) == 1


def test_a_failure_that_comes_before_its_command_is_adopted_has_it_run_again() -> None:
    case, b = running_when_dropped()
    case.send(task_outcome(case, b, "failed", generation=0))
    case.send(task_outcome(case, case.known("a"), generation=1))
    assert [(task.task_id, task.generation) for task in case.turn(b).sent(RunTask)] == [(b.id, 1)]


def test_a_command_that_runs_while_it_is_adopted_is_not_dispatched_again() -> None:
    case, b = running_when_dropped()
    case.send(task_outcome(case, case.known("a"), generation=1))
    assert b in case.asked().adoptable
    assert case.turn(b).sent(RunTask) == []
    assert isinstance(case.send(task_outcome(case, b, generation=0)).decision, d.Record)


def test_a_command_nobody_issued_again_is_canceled_at_the_end() -> None:
    case, b = running_when_dropped()
    case.send(task_outcome(case, case.known("a"), generation=1))
    reaction = case.turn(completion=COMPLETED)
    assert [task.task_id for task in reaction.sent(CancelTask)] == [b.id]


def test_a_signal_of_a_dropped_turn_issued_again_is_not_sent_again() -> None:
    case = failed_after(failed_after().command("s", "signal", target="other"))
    case.send(resume())
    case.send(task_outcome(case, case.known("a"), generation=1))
    (said,) = case.asked().adoptable
    new = case.command("t", "signal", target="other")
    sent = case.turn(said, new).sent(SendSignal)
    assert [signal.channel for signal in sent] == ["t"]
    assert sent[0].after_number == 0
    assert case.state.unsaid == {}


def test_edited_input_is_used_again_at_the_next_resume() -> None:
    case = failed_after()
    edited = Payload("json", b"[2]")
    case.send(resume(edits=[Edit(position="a", args=edited)]))
    case.send(task_outcome(case, case.known("a"), "failed", generation=1))
    case.turn(completion=failing(case.known("a")))
    assert [task.args for task in case.send(resume()).sent(RunTask)] == [edited]


def test_a_skip_answers_the_failed_command() -> None:
    case = failed_after()
    reaction = case.send(resume(edits=[Edit(position="a", result=NULL)]))
    settled = [event for event in reaction.events if isinstance(event, CommandSettled)]
    assert [(event.outcome, event.result) for event in settled] == [("skipped", NULL)]
    assert reaction.sent(RunTask) == []
    assert len(reaction.sent(RunWorkflowTask)) == 1


def test_an_edit_at_a_position_that_never_was_is_refused() -> None:
    case = failed_after()
    reaction = case.send(resume(edits=[Edit(position="aa", args=NULL)]))
    assert reaction.recorded == []
    (reply,) = reaction.sent(CommandReply)
    assert reply.status == "refused"
    assert "'aa'" in reply.detail


def test_an_edit_of_what_has_its_result_is_refused() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, b))
    case.send(task_outcome(case, a, "failed"))
    case.turn(completion=failing(a))
    for edit in (Edit(position="b", args=NULL), Edit(position="b", result=NULL)):
        reaction = case.send(resume(edits=[edit]))
        assert reaction.recorded == []
        (reply,) = reaction.sent(CommandReply)
        assert reply.status == "refused"
        assert "at position 'b' has its result, which stays" in reply.detail
    assert len(case.send(resume(edits=[Edit(position="a", args=NULL)])).recorded) == 1


def made_up_for() -> Case:
    """Task `a` failed; `refund` was done for it, and the run failed."""
    case = Case()
    case.start()
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    refund = case.command("refund")
    case.turn(refund)
    case.send(task_outcome(case, refund))
    case.turn(completion=failing(a))
    return case


def test_a_resume_from_before_what_was_done_after_the_failure_is_refused_unless_asked_for_anyway() -> None:
    case = made_up_for()
    reaction = case.send(resume())
    assert reaction.recorded == []
    (reply,) = reaction.sent(CommandReply)
    assert reply.status == "refused"
    assert "completed refund (position refund)" in reply.detail
    (rewound,) = [recorded.event for recorded in case.send(resume(anyway=True)).recorded]
    assert isinstance(rewound, Rewound)


def test_a_reset_says_itself_where_to_go_back_to_and_is_not_refused() -> None:
    assert len(made_up_for().send(resume(position="a")).recorded) == 1


def test_what_an_outcome_after_the_failure_tells_of_a_task_issued_before_it_hinders_no_resume() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a, "failed"))
    case.send(task_outcome(case, b))
    case.turn(completion=failing(a))
    assert len(case.send(resume()).recorded) == 1


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
