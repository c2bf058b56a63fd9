"""What a run has completed that stands against a rewind: of a parent by its child, and a reset."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_schemas.common import NULL, Command
from perdure_schemas.events import Edit, Rewound
from perdure_schemas.messages import CommandReply, StartWorkflow
from tests.core.workflow_case import (
    COMPLETED,
    Case,
    Reaction,
    child_outcome,
    control,
    failing,
    resume,
    task_outcome,
    timer_fired,
    wait_any,
)


def two_children(undo: str = "task", *, undone: bool = True, failed: bool = True) -> tuple[Case, Command, Command]:
    """Both children of a run failed: the second while the run made up for the failure of the first."""
    case = Case()
    case.start()
    first, second = case.command("k0", "child"), case.command("k1", "child")
    case.turn(first, second)
    case.send(child_outcome(case, first, "failed"))
    made_up = case.command("undo", undo, due_at=case.now)
    case.turn(made_up)
    if failed:
        case.send(child_outcome(case, second, "failed"))
    if undone:
        case.send(timer_fired(case, "command", made_up) if undo == "timer" else task_outcome(case, made_up))
    return case, first, second


def resumed(case: Case, child: Command, *, anyway: bool = False) -> Reaction:
    """The child was resumed, and tells its parent."""
    return case.send(resume(command_id=child.id, actor="child", anyway=anyway))


@pytest.mark.parametrize("undo", ["task", "child", "timer"])
def test_a_child_that_failed_while_its_parent_made_up_for_another_goes_on_alone(undo: str) -> None:
    case, _, second = two_children(undo)
    case.turn(completion=COMPLETED)
    reaction = resumed(case, second)
    assert isinstance(reaction.decision, d.Discard)
    assert reaction.recorded == []
    assert case.state.status == "completed"


def test_so_it_does_where_its_parent_hears_of_the_failure_and_of_what_made_up_at_once() -> None:
    case, _, second = two_children(undone=False, failed=False)
    case.send(task_outcome(case, case.known("undo")))
    case.send(child_outcome(case, second, "failed"))
    case.turn(completion=COMPLETED)
    assert resumed(case, second).recorded == []


def test_so_it_does_where_its_parent_ended_before_it_heard_of_the_failure() -> None:
    case = Case()
    case.start()
    children = case.command("k0", "child"), case.command("k1", "child")
    case.turn(*children)
    case.send(child_outcome(case, children[0], "failed"))
    asked = case.asked()
    case.send(child_outcome(case, children[1], "failed"))
    case.turn(completion=COMPLETED, asked=asked)
    assert case.state.status == "completed"
    assert resumed(case, children[1]).recorded == []


@pytest.mark.parametrize("ended", ["running", "failed for the first"])
def test_so_it_does_where_its_parent_is_at_something_else_or_failed_for_the_other(ended: str) -> None:
    case, first, second = two_children()
    if ended != "running":
        case.turn(completion=failing(first))
    assert resumed(case, second).recorded == []


@pytest.mark.parametrize("beside", [False, True])
def test_so_it_does_while_its_parent_still_makes_up_for_its_failure_or_for_anothers(beside: bool) -> None:
    """What is under way would be done, and the parent, gone back, would not know."""
    case = Case()
    case.start()
    first, second = case.command("k0", "child"), case.command("k1", "child")
    case.turn(first, second)
    case.send(child_outcome(case, first, "failed"))
    case.turn(case.command("undo"))
    if beside:
        case.send(child_outcome(case, second, "failed"))
    assert resumed(case, second if beside else first).recorded == []
    assert len(resumed(case, second if beside else first, anyway=True).recorded) == 1


def test_a_parent_that_was_canceled_tidies_up_whatever_becomes_of_the_child_that_it_canceled() -> None:
    """A child that fails at its own tidying up is no news to it, so there is nothing to go back to."""
    case = Case()
    case.start()
    child = case.command("k0", "child")
    case.turn(child)
    case.send(control("cancel"))
    case.turn(case.command("x", "cancel", target=child.id), case.command("tidy"))
    case.send(child_outcome(case, child, "failed"))
    assert resumed(case, child, anyway=True).recorded == []
    assert case.send(child_outcome(case, child)).recorded == []


def test_a_parent_that_does_nothing_about_the_failure_yet_goes_back_to_before_it() -> None:
    case = Case()
    case.start()
    child = case.command("k0", "child")
    case.turn(child)
    asked = case.asked()
    case.send(child_outcome(case, child, "failed"))
    case.turn(case.command("beside"), case.command("t", "timer", due_at=case.now), asked=asked)
    assert len(resumed(case, child).recorded) == 1


def test_what_is_asked_for_anyway_takes_the_parent_back() -> None:
    case, _, second = two_children()
    case.turn(completion=COMPLETED)
    (rewound,) = resumed(case, second, anyway=True).events
    assert isinstance(rewound, Rewound)


@pytest.mark.parametrize("undone", [True, False])
def test_a_parent_that_failed_for_the_child_goes_back_with_it_whatever_another_branch_did(undone: bool) -> None:
    case, _, second = two_children(undone=undone)
    case.turn(completion=failing(second))
    assert [start.workflow_id != "" for start in resumed(case, second).sent(StartWorkflow)] == [True]


def test_a_parent_that_did_nothing_about_the_first_failure_goes_back_to_before_the_second() -> None:
    """As one that gathers what failed, and goes on with the rest."""
    case = Case()
    case.start()
    first, second = case.command("k0", "child"), case.command("k1", "child")
    case.turn(first, second, case.command("before"))
    case.send(child_outcome(case, first, "failed"))
    case.turn()
    case.send(child_outcome(case, second, "failed"))
    case.send(task_outcome(case, case.known("before")))
    case.turn(completion=COMPLETED)
    assert len(resumed(case, second).recorded) == 1


def test_a_parent_whose_children_follow_each_other_goes_back_to_before_the_last_failure() -> None:
    case = Case()
    case.start()
    first, second = case.command("k0", "child"), case.command("k1", "child")
    case.turn(first)
    case.send(child_outcome(case, first, "failed"))
    case.turn(second, case.command("beside"))
    case.send(child_outcome(case, second, "failed"))
    case.send(task_outcome(case, case.known("beside")))
    case.turn(completion=COMPLETED)
    assert len(resumed(case, second).recorded) == 1


def test_what_failed_once_the_workflow_had_canceled_it_is_no_failure_it_went_on_from() -> None:
    case = Case()
    case.start()
    loser, winner, child = case.command("loser"), case.command("winner"), case.command("k1", "child")
    case.turn(loser, winner, child)
    case.send(task_outcome(case, winner))
    asked = case.asked()
    case.send(task_outcome(case, loser, "failed"))
    case.turn(case.command("x", "cancel", target=loser.id), waits=wait_any(child), asked=asked)
    case.turn(case.command("work"))
    case.send(child_outcome(case, child, "failed"))
    case.send(task_outcome(case, case.known("work")))
    case.turn(completion=COMPLETED)
    assert len(resumed(case, child).recorded) == 1


def done(*failed: str) -> Case:
    """Tasks `a`, `b` and `c` follow each other; the last is the run's last, too."""
    case = Case()
    case.start()
    for position in ("a", "b", "c"):
        task = case.command(position)
        case.turn(task)
        case.send(task_outcome(case, task, "failed" if position in failed else "completed"))
    case.turn(completion=COMPLETED)
    return case


def test_a_reset_names_what_was_completed_after_its_position_unless_asked_for_anyway() -> None:
    case = done("a")
    reaction = case.send(resume(position="a"))
    assert reaction.recorded == []
    (reply,) = reaction.sent(CommandReply)
    assert reply.status == "refused"
    assert "after position a the run completed b (position b), c (position c). " in reply.detail
    assert "Say `anyway`" in reply.detail
    assert len(case.send(resume(position="a", anyway=True)).recorded) == 1


@pytest.mark.parametrize("failed", [False, True])
def test_a_reset_names_children_that_others_would_take_the_place_of(failed: bool) -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(task_outcome(case, case.known("a")))
    child = case.command("k", "child")
    case.turn(child)
    if failed:
        case.send(child_outcome(case, child, "failed"))
    (reply,) = case.send(resume(position="a")).sent(CommandReply)
    assert reply.status == "refused"
    assert "after position a the run began" in reply.detail
    assert "(position k), which may have completed tasks of their own. " in reply.detail
    assert len(case.send(resume(position="a", anyway=True)).recorded) == 1


def test_a_reset_asks_nothing_of_what_it_names_itself_or_of_what_has_failed() -> None:
    assert len(done().send(resume(position="c")).recorded) == 1
    assert len(done("c").send(resume(position="b")).recorded) == 1
    edits = [Edit(position="b", args=NULL), Edit(position="c", result=NULL)]
    assert len(done().send(resume(position="a", edits=edits)).recorded) == 1


def test_a_reset_asks_nothing_of_what_stands_before_its_position_in_the_same_turn() -> None:
    case = Case()
    case.start()
    both = case.command("a"), case.command("b")
    case.turn(*both)
    for task in both:
        case.send(task_outcome(case, task))
    case.turn(completion=COMPLETED)
    assert len(case.send(resume(position="b")).recorded) == 1
