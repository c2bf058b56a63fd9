"""A failed run may be resumed, so its open work goes on, until it is purged or another run follows it."""

from __future__ import annotations

import pytest

from perdure_core.task_engine.authority import EVERY_COMMAND, judge, marks
from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.effects import effects
from perdure_schemas.common import ClosePolicy, RunOptions
from perdure_schemas.events import RunEnded, Started, TurnCommitted
from perdure_schemas.messages import (
    CancelTask,
    CancelTimer,
    ControlRun,
    Message,
    ResumeRun,
    ScheduleTimer,
    TaskOutcome,
    TimerFired,
)
from tests.core.workflow_case import WORKFLOW_ID, Case, Reaction, failing, start

RETENTION_OVER = 10**15


def failed_run(*, policy: ClosePolicy = "terminate", open_work: bool = True) -> Case:
    """It failed while a task and a child were open; the task was issued by its very last turn."""
    case = Case()
    case.start()
    if open_work:
        case.turn(case.command("child", "child", close_policy=policy))
    commands = [case.command("task")] if open_work else []
    case.turn(*commands, completion=failing())
    assert case.state.status == "failed"
    return case


def retention(case: Case) -> TimerFired:
    generation = case.state.generation
    return TimerFired(
        workflow_id=WORKFLOW_ID, run_id="r1", kind="retention", generation=generation, due_at=RETENTION_OVER
    )


def closes(reaction: Reaction) -> set[str]:
    return {f"cancel {body.task_id}" for body in reaction.sent(CancelTask)} | {
        f"{body.action} child" for body in reaction.sent(ControlRun)
    }


@pytest.mark.parametrize("policy", ["cancel", "terminate", "abandon"])
def test_what_is_open_is_closed_before_the_run_is_purged(policy: ClosePolicy) -> None:
    case = failed_run(policy=policy)
    task = case.known("task").id
    reaction = case.send(retention(case))
    (event,) = reaction.events
    assert isinstance(event, RunEnded)
    assert (event.status, event.final) == ("failed", True)
    assert closes(reaction) == {f"cancel {task}"} | ({f"{policy} child"} if policy != "abandon" else set())
    assert case.state.started is None, "purged"
    assert case.purged_runs == {"r1"}


def test_what_is_open_is_closed_before_another_run_follows() -> None:
    case = failed_run()
    reaction = case.send(start(run_id="r2"))
    assert [type(event) for event in reaction.events] == [RunEnded, Started]
    assert closes(reaction) == {f"cancel {case_task(case)}", "terminate child"}
    assert case.state.run_id == "r2"


def case_task(case: Case) -> str:
    """Of the run before the present one."""
    _, history = case.past[-1]
    turns = [recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted)]
    return next(command.id for turn in turns for command in turn.commands if command.position == "task")


def test_a_run_that_left_nothing_open_needs_no_closing() -> None:
    assert isinstance(failed_run(open_work=False).send(retention(failed_run())).decision, d.Purge)
    reaction = failed_run(open_work=False).send(start(run_id="r2"))
    assert [type(event) for event in reaction.events] == [Started]


def half_purged(case: Case) -> tuple[Message, Reaction]:
    """The engine closed the run and died before it purged it: the message comes again, and what it did at first."""
    message = case.message(retention(case))
    decision = case.decide(message)
    assert isinstance(decision, d.Record)
    reaction = Reaction(decision=decision)
    alone = d.Record(events=decision.events, now=True, cause=decision.cause)
    case._record(alone, message, reaction, hold=False)
    return message, reaction


def test_a_closed_run_is_kept_as_long_as_before() -> None:
    case = failed_run()
    ended_at, ended = case.state.ended_at, case.state.ended
    assert ended is not None
    _, reaction = half_purged(case)
    (event,) = reaction.events
    assert isinstance(event, RunEnded)
    assert event.failure == ended.failure
    (kept,) = reaction.sent(ScheduleTimer)
    assert kept.due_at == ended_at + RunOptions().retention_ms


def test_a_purge_that_comes_again_closes_again_first() -> None:
    case = failed_run()
    message, reaction = half_purged(case)
    assert isinstance(case.decide(message), d.Purge)
    assert closes(case.deliver(message)) == closes(reaction) != set()


def test_a_start_that_comes_again_closes_again_first() -> None:
    case = failed_run()
    message = case.message(start(run_id="r2"))
    closed = closes(case.deliver(message))
    assert closes(case.deliver(message)) == closed != set()


def test_a_closed_run_takes_no_outcome_and_is_not_resumed() -> None:
    case = failed_run()
    half_purged(case)
    task = case.known("task").id
    outcome = TaskOutcome(
        workflow_id=WORKFLOW_ID, run_id="r1", command_id=task, generation=0, attempt=1, outcome="completed"
    )
    assert case.send(outcome).decision == d.Discard("closed")
    assert isinstance(case.send(ResumeRun(workflow_id=WORKFLOW_ID)).decision, d.Discard)


def test_tasks_of_a_closed_run_are_tried_no_more() -> None:
    case = failed_run()
    task = case.known("task").id

    def state() -> str:
        found = [mark for recorded in case.history for of, mark in marks(recorded) if of in (task, EVERY_COMMAND)]
        return judge(task, found, 0).state

    assert state() == "open"
    half_purged(case)
    assert state() == "ended"


def test_the_time_out_of_a_run_that_has_ended_is_canceled_if_it_is_far_ahead() -> None:
    """Of each generation: nobody canceled that of a run which was rewound."""
    year_ms = 365 * 86_400_000
    for timeout_ms, canceled in ((year_ms, True), (3_600_000, False)):
        case = Case()
        armed = case.start(options=RunOptions(run_timeout_ms=timeout_ms)).sent(ScheduleTimer)
        first = case.turn(completion=failing())
        armed += case.send(ResumeRun(workflow_id=WORKFLOW_ID)).sent(ScheduleTimer)
        again = case.turn(completion=failing())
        timeouts = [CancelTimer(timer_id=each.timer_id, due_at=each.due_at) for each in armed]
        assert len(timeouts) == 2
        assert [each for each in first.sent(CancelTimer) if each in timeouts] == (timeouts[:1] if canceled else [])
        assert [each for each in again.sent(CancelTimer) if each in timeouts] == (timeouts if canceled else [])


def test_a_start_that_comes_again_after_a_rewind_does_not_bring_the_time_out_forward() -> None:
    case = Case()
    case.start(options=RunOptions(run_timeout_ms=86_400_000))
    case.turn(completion=failing())
    case.send(ResumeRun(workflow_id=WORKFLOW_ID))
    started = [recorded for recorded in case.history if isinstance(recorded.event, Started)]
    assert not effects(case.state, started)
