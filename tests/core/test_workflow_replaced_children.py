"""A child that is started anew under its own id, after a rewind of its parent: it follows the one before it."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_schemas import ids
from perdure_schemas.common import ClosePolicy, Command, Parent, Payload
from perdure_schemas.events import Edit, Started
from perdure_schemas.messages import ChildOutcome, ControlRun, StartWorkflow
from tests.core.workflow_case import (
    COMPLETED,
    Case,
    child_outcome,
    completed,
    control,
    failing,
    resume,
    start,
    task_outcome,
)

A = Parent(workflow_id="p", run_id="p1", command_id="a", generation=0)
B = Parent(workflow_id="p", run_id="p1", command_id="b", generation=1)
C = Parent(workflow_id="p", run_id="p1", command_id="c", generation=2)


def kid(case: Case, position: str = "k", **fields: object) -> Command:
    return case.command(position, "child", child_id="kid", **fields)


def again(parent: Parent, run_id: str = "r2") -> StartWorkflow:
    return start(run_id=run_id, parent=parent, conflict_policy="use-existing")


def started(child: Command) -> str:
    return ids.derive_id(child.id, "run")


# --- where the child is -----------------------------------------------------------------------------


def test_the_start_does_nothing_as_long_as_the_old_child_is_there_and_begins_after_it() -> None:
    case = Case()
    case.start(parent=A)
    message = case.message(again(B))
    reaction = case.deliver(message)
    assert isinstance(reaction.decision, d.Discard)
    assert reaction.published == []
    case.send(control("cancel", run_id="r1", actor="parent"))
    assert case.deliver(message).published == [], "it tidies up"
    (told,) = case.turn(completion=failing()).sent(ChildOutcome)
    assert told.command_id == "a"
    assert isinstance(case.deliver(message).events[-1], Started)
    assert case.state.run_id == "r2"


@pytest.mark.parametrize(
    ("there", "comes"),
    [
        (None, B),
        (Parent(workflow_id="q", run_id="p1", command_id="a", generation=0), B),
        (Parent(workflow_id="p", run_id="p0", command_id="a", generation=0), B),
        (Parent(workflow_id="p", run_id="p1", command_id="a", generation=0, close_policy="abandon"), B),
        (B, B),
        (C, B),
    ],
    ids=["nobody's", "another parent's", "another run's", "to outlive its parent", "of these turns", "of later turns"],
)
def test_any_other_run_under_the_id_refuses_the_start(there: Parent | None, comes: Parent) -> None:
    case = Case()
    case.start(parent=there)
    (told,) = case.send(again(comes)).sent(ChildOutcome)
    assert told.failure is not None
    assert (told.command_id, told.outcome, told.failure.name) == ("b", "failed", "AlreadyStarted")


def test_what_ends_a_child_waits_for_its_start_also_while_the_old_one_is_there() -> None:
    case = Case()
    case.start(parent=A)
    assert isinstance(case.send(control("cancel", run_id="r2", actor="parent")).decision, d.Later)
    late = case.message(control("cancel", run_id="r2", actor="parent"), at=case.now - 600_000)
    assert isinstance(case.decide(late), d.Discard)


# --- where the parent is ----------------------------------------------------------------------------


def with_child(policy: ClosePolicy = "cancel") -> tuple[Case, Command]:
    case = Case()
    case.start()
    child = kid(case, close_policy=policy)
    case.turn(child)
    return case, child


def test_a_child_asked_for_anew_says_so_and_is_asked_for_again_when_the_old_one_has_ended() -> None:
    case, old = with_child()
    case.send(resume(position="k", anyway=True))
    new = kid(case)
    (first,) = case.turn(new).sent(StartWorkflow)
    assert (first.run_id, first.conflict_policy) == (started(new), "use-existing")
    ended = case.message(child_outcome(case, old, "canceled"))
    for _ in range(2):  # the message may come twice
        reaction = case.deliver(ended)
        assert isinstance(reaction.decision, d.Serve)
        assert [(each.run_id, each.conflict_policy) for each in reaction.sent(StartWorkflow)] == [
            (started(new), "use-existing")
        ]
    case.send(child_outcome(case, new))
    assert case.deliver(ended).published == []


def test_a_child_whose_id_nobody_had_is_refused_if_somebody_has_it() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(resume(position="a", anyway=True))
    (first,) = case.turn(kid(case)).sent(StartWorkflow)
    assert first.conflict_policy == "fail"


def test_of_two_children_that_are_asked_for_under_one_id_only_the_first_follows_the_old_one() -> None:
    case, _ = with_child()
    case.send(resume(position="k", anyway=True))
    starts = case.turn(kid(case), kid(case, "l")).sent(StartWorkflow)
    assert [each.conflict_policy for each in starts] == ["use-existing", "fail"]


def test_after_two_resets_only_the_last_child_is_asked_for() -> None:
    case, old = with_child()
    case.send(resume(position="k", anyway=True))
    between = kid(case)
    case.turn(between)
    closed = case.send(resume(position="k", anyway=True)).sent(ControlRun)
    assert {each.run_id for each in closed} == {started(between)}
    new = kid(case)
    case.turn(new)
    for child in (old, between):
        reaction = case.send(child_outcome(case, child, "canceled"))
        assert [each.run_id for each in reaction.sent(StartWorkflow)] == [started(new)]


def test_a_child_that_was_skipped_is_not_started() -> None:
    case, old = with_child()
    case.send(resume(position="k", edits=[Edit(position="k", result=Payload("json", b"1"))], anyway=True))
    assert case.turn(kid(case)).sent(StartWorkflow) == []
    assert case.send(child_outcome(case, old, "canceled")).published == []


@pytest.mark.parametrize("then", ["another reset", "the end"])
def test_what_a_reset_drops_is_told_to_end_even_if_that_was_not_published_before_something_else_came(then: str) -> None:
    case, old = with_child()
    first = case.message(resume(position="k", anyway=True))
    case.deliver(first)
    case.turn(kid(case, "other"))
    case.send(resume(position="other", anyway=True) if then == "another reset" else control("terminate"))
    repeated = case.deliver(first)
    assert isinstance(repeated.decision, d.AlreadyRecorded)
    assert started(old) in {each.run_id for each in repeated.sent(ControlRun)}


@pytest.mark.parametrize("how", ["end", "turn"])
def test_a_reset_tells_a_child_to_end_that_an_end_or_turn_which_it_undoes_had_canceled(how: str) -> None:
    """It may not have been published, and nobody would do it any more."""
    case, old = with_child()
    if how == "end":
        case.send(control("terminate"))
    else:
        case.turn(case.command("x", "cancel", target=old.id), case.command("t"))
    (told,) = case.send(resume(position="k", anyway=True)).sent(ControlRun)
    assert (told.run_id, told.action) == (started(old), "cancel")


def test_a_child_that_a_resume_dropped_is_told_to_end_when_another_takes_its_id() -> None:
    case = Case()
    case.start()
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    old = kid(case, "old")
    case.turn(old)
    case.turn(completion=failing(a))
    case.send(resume(anyway=True))
    case.send(task_outcome(case, a))
    new = kid(case, "new")
    reaction = case.turn(new)
    assert [(each.run_id, each.action) for each in reaction.sent(ControlRun)] == [(started(old), "cancel")]
    (first,) = reaction.sent(StartWorkflow)
    assert first.conflict_policy == "use-existing"
    ended = case.message(child_outcome(case, old, "canceled"))
    assert [each.run_id for each in case.deliver(ended).sent(StartWorkflow)] == [started(new)]
    assert [each.run_id for each in case.deliver(ended).sent(StartWorkflow)] == [started(new)], "recorded, and again"


def test_a_child_that_waits_begins_also_if_a_resume_dropped_its_turn_meanwhile() -> None:
    case, old = with_child()
    case.send(resume(position="k", anyway=True))
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    new = kid(case)
    case.turn(new, completion=failing(a))
    case.send(resume())
    assert new.id in case.state.orphans
    reaction = case.send(child_outcome(case, old, "canceled"))
    assert [each.run_id for each in reaction.sent(StartWorkflow)] == [started(new)]


def test_a_child_that_outlives_its_parent_begins_though_its_parent_has_ended_meanwhile() -> None:
    case, old = with_child()
    case.send(resume(position="k", anyway=True))
    new = kid(case, close_policy="abandon")
    case.send(completed(case.asked(), [new], completion=COMPLETED))
    assert case.state.closed
    reaction = case.send(child_outcome(case, old, "canceled"))
    assert [each.run_id for each in reaction.sent(StartWorkflow)] == [started(new)]


def test_a_child_does_not_begin_after_the_end_of_its_parent() -> None:
    case, old = with_child()
    case.send(resume(position="k", anyway=True))
    case.turn(kid(case))
    case.send(control("terminate"))
    assert case.send(child_outcome(case, old, "canceled")).published == []
