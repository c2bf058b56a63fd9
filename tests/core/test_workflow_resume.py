"""Resume and reset: what is kept, what is done again, what is canceled."""

from __future__ import annotations

import pytest

from perdure_core.history import effective
from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.effects import effects
from perdure_schemas.common import NULL, Command, Payload
from perdure_schemas.events import CommandSettled, Edit, Event, Rewound, RunEnded, TurnCommitted
from perdure_schemas.messages import (
    CancelTask,
    CommandReply,
    RunTask,
    RunWorkflowTask,
    SendSignal,
    StartWorkflow,
)
from tests.core.workflow_case import (
    COMPLETED,
    Case,
    failed_after,
    failing,
    resume,
    task_outcome,
)


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


def test_a_turn_dropped_before_it_was_published_publishes_still_what_may_be_adopted() -> None:
    """A resume overtook the publishing of the turn that issued `b`: whoever adopts it takes it to be under way."""
    case, b = running_when_dropped()

    def attempts() -> list[str]:
        published = effects(case.state, [recorded for recorded in case.history if b in _issued(recorded.event)])
        return [message.body.task_id for _, message in published if isinstance(message.body, RunTask)]

    assert attempts() == [b.id]
    case.send(task_outcome(case, b, generation=0))
    assert attempts() == []


def _issued(event: Event) -> list[Command]:
    return event.commands if isinstance(event, TurnCommitted) else []


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


def test_two_edits_of_one_position_are_refused() -> None:
    edits = [Edit(position="a", args=NULL), Edit(position="a", result=NULL)]
    (reply,) = failed_after().send(resume(edits=edits)).sent(CommandReply)
    assert "a position is given twice" in reply.detail


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


def stuck_by_a_skip() -> Case:
    """Task `a` failed, a person gave it a result by skip, and the code cannot read it."""
    case = failed_after()
    case.send(resume(edits=[Edit(position="a", result=Payload("json", b'"abc"'))]))
    case.fail_turn()
    assert case.state.status == "stuck"
    return case


def test_a_skip_that_does_not_fit_is_healed_by_another_one() -> None:
    case = stuck_by_a_skip()
    right = Payload("json", b"7")
    reaction = case.send(resume(edits=[Edit(position="a", result=right)]))
    assert [type(event).__name__ for event in reaction.events] == ["Rewound", "CommandSettled"]
    given = [event.result for event in _in_force(case) if isinstance(event, CommandSettled)]
    assert given == [right]
    assert reaction.sent(RunTask) == []
    assert len(reaction.sent(RunWorkflowTask)) == 1
    assert case.turn(completion=COMPLETED).events[-1] == RunEnded(status="completed", result=NULL, completion=COMPLETED)


def test_a_skip_is_taken_back_by_an_edit_and_the_task_runs() -> None:
    case = stuck_by_a_skip()
    edited = Payload("json", b"[2]")
    (run,) = case.send(resume(edits=[Edit(position="a", args=edited)])).sent(RunTask)
    assert (run.args, run.generation) == (edited, 2)
    assert [event for event in _in_force(case) if isinstance(event, CommandSettled)] == []
    case.send(task_outcome(case, case.known("a")))
    assert [event.outcome for event in _in_force(case) if isinstance(event, CommandSettled)] == ["completed"]


def test_a_plain_resume_keeps_what_was_given_by_skip() -> None:
    case = stuck_by_a_skip()
    assert case.send(resume()).sent(RunTask) == []
    assert [event.outcome for event in _in_force(case) if isinstance(event, CommandSettled)] == ["skipped"]


def test_a_skip_taken_back_leaves_the_other_one_as_it_is() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a, "failed"))
    case.turn(completion=failing(a))
    case.send(resume(edits=[Edit(position="a", result=NULL), Edit(position="b", result=NULL)]))
    case.fail_turn()
    other = Payload("json", b"7")
    case.send(resume(edits=[Edit(position="a", result=other)]))
    settled = [event for event in _in_force(case) if isinstance(event, CommandSettled)]
    assert [(event.command_id, event.result) for event in settled] == [(b.id, NULL), (a.id, other)]


def test_a_skip_in_a_turn_that_is_dropped_is_taken_back_too() -> None:
    """Its command is no more in force; issued again, it is dispatched with the new arguments."""
    case = failed_after()
    case.send(resume(edits=[Edit(position="a", result=NULL)]))
    b = case.command("b")
    case.turn(b)
    case.send(task_outcome(case, b, "failed"))
    case.turn(completion=failing(b))
    case.send(resume(edits=[Edit(position="b", result=NULL)]))
    case.fail_turn()
    edited = Payload("json", b"[2]")
    edits = [Edit(position="a", args=edited), Edit(position="b", args=edited)]
    assert [run.name for run in case.send(resume(edits=edits, anyway=True)).sent(RunTask)] == ["a"]
    case.send(task_outcome(case, case.known("a")))
    reaction = case.turn(b)
    assert [(run.name, run.args) for run in reaction.sent(RunTask)] == [("b", edited)]
    assert [event for event in reaction.events if isinstance(event, CommandSettled)] == []


def stuck_with_a_failure_the_code_took(*then: Command) -> Case:
    """Task `a` failed, the code caught that, and a bug showed in what it did then."""
    case = Case()
    case.start()
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    for command in then:
        case.turn(command)
        case.send(task_outcome(case, command))
    case.fail_turn()
    assert case.state.status == "stuck"
    return case


def test_an_edit_takes_back_a_failure_that_the_code_took_and_the_task_runs() -> None:
    case = stuck_with_a_failure_the_code_took()
    edited = Payload("json", b"[2]")
    (run,) = case.send(resume(edits=[Edit(position="a", args=edited)])).sent(RunTask)
    assert (run.args, run.generation) == (edited, 1)
    assert isinstance(case.send(task_outcome(case, case.known("a"), "failed", generation=0)).decision, d.Discard)
    case.send(task_outcome(case, case.known("a"), generation=1))
    assert [event.outcome for event in _in_force(case) if isinstance(event, CommandSettled)] == ["completed"]
    assert case.turn(completion=COMPLETED).events[-1] == RunEnded(status="completed", result=NULL, completion=COMPLETED)


def test_a_skip_takes_back_a_failure_that_the_code_took() -> None:
    case = stuck_with_a_failure_the_code_took()
    result = Payload("json", b"9")
    reaction = case.send(resume(edits=[Edit(position="a", result=result)]))
    assert reaction.sent(RunTask) == []
    assert len(reaction.sent(RunWorkflowTask)) == 1
    given = [(event.outcome, event.result) for event in _in_force(case) if isinstance(event, CommandSettled)]
    assert given == [("skipped", result)]


def test_a_plain_resume_of_a_stuck_run_keeps_the_failure_that_the_code_took() -> None:
    case = stuck_with_a_failure_the_code_took()
    assert case.send(resume()).sent(RunTask) == []
    assert [event.outcome for event in _in_force(case) if isinstance(event, CommandSettled)] == ["failed"]


def test_a_failure_is_not_taken_back_before_work_that_was_done_since_unless_asked_for_anyway() -> None:
    case = stuck_with_a_failure_the_code_took(Case().command("refund"))
    edits = [Edit(position="a", result=NULL)]
    (reply,) = case.send(resume(edits=edits)).sent(CommandReply)
    assert "completed refund (position refund)" in reply.detail
    assert case.send(resume(edits=edits, anyway=True)).events


def test_an_edit_of_an_earlier_failure_than_the_one_that_ended_the_run_goes_back_to_that() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a, "failed"))
    case.send(task_outcome(case, b, "failed"))
    case.turn(completion=failing(b))
    runs = case.send(resume(edits=[Edit(position="a", args=Payload("json", b"[2]"))])).sent(RunTask)
    assert {run.name for run in runs} == {"a", "b"}


@pytest.mark.parametrize("edit", [Edit(position="a", args=NULL), Edit(position="a", result=NULL)])
def test_an_edit_of_what_the_workflow_canceled_itself_is_refused(edit: Edit) -> None:
    case = Case()
    case.start()
    a = case.command("a")
    case.turn(a)
    case.turn(case.command("x", "cancel", target=a.id))
    case.fail_turn()
    (reply,) = case.send(resume(edits=[edit])).sent(CommandReply)
    assert (reply.status, "was canceled by the workflow itself" in reply.detail) == ("refused", True)


def _in_force(case: Case) -> list[Event]:
    return [recorded.event for recorded in effective(case.history)]


def test_a_resume_takes_back_no_skip_before_work_that_was_done_since() -> None:
    case = failed_after()
    case.send(resume(edits=[Edit(position="a", result=NULL)]))
    refund = case.command("refund")
    case.turn(refund)
    case.send(task_outcome(case, refund))
    case.fail_turn()
    (reply,) = case.send(resume(edits=[Edit(position="a", result=NULL)])).sent(CommandReply)
    assert "completed refund (position refund)" in reply.detail
    assert case.send(resume(edits=[Edit(position="a", result=NULL)], anyway=True)).events


def test_a_child_keeps_its_arguments_at_a_resume_and_has_others_after_a_reset() -> None:
    case = Case()
    case.start()
    child = case.command("k", "child")
    case.turn(child)
    case.send(task_outcome(case, child, "failed"))
    case.turn(completion=failing(child))
    edited = Payload("json", b"[2]")
    (reply,) = case.send(resume(edits=[Edit(position="k", args=edited)])).sent(CommandReply)
    assert (reply.status, "which keeps the arguments" in reply.detail) == ("refused", True)
    case.send(resume(position="k", edits=[Edit(position="k", args=edited)]))
    (start,) = case.turn(case.command("k", "child")).sent(StartWorkflow)
    assert start.args == edited


def test_a_reset_with_edits_gives_what_it_does_anew_other_arguments_or_a_result() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a))
    case.send(task_outcome(case, b))
    case.turn(completion=COMPLETED)
    edited = Payload("json", b"[2]")
    case.send(resume(position="a", edits=[Edit(position="a", args=edited), Edit(position="b", result=NULL)]))
    reaction = case.turn(case.command("a"), case.command("b"))
    assert [(run.name, run.args) for run in reaction.sent(RunTask)] == [("a", edited)]
    settled = [event for event in reaction.events if isinstance(event, CommandSettled)]
    assert [(event.command_id, event.outcome) for event in settled] == [(case.command("b").id, "skipped")]


def test_a_reset_refuses_an_edit_of_what_it_does_not_do_anew() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a)
    case.send(task_outcome(case, a))
    case.turn(b)
    for edit in (Edit(position="a", args=NULL), Edit(position="a", result=NULL)):
        reaction = case.send(resume(position="b", edits=[edit]))
        assert reaction.recorded == []
        (reply,) = reaction.sent(CommandReply)
        assert "at position 'a' has its result, which stays" in reply.detail


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


def test_what_an_outcome_after_the_failure_tells_of_a_task_issued_before_it_hinders_no_resume() -> None:
    case = Case()
    case.start()
    a, b = case.command("a"), case.command("b")
    case.turn(a, b)
    case.send(task_outcome(case, a, "failed"))
    case.send(task_outcome(case, b))
    case.turn(completion=failing(a))
    assert len(case.send(resume()).recorded) == 1
