"""Reuse of a workflow id: which runs that have ended let another begin, and what is told where none may."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.start import START_AGE_MAX_MS
from perdure_schemas.common import (
    NULL,
    Completion,
    CompletionStatus,
    ConflictPolicy,
    ContinueAsNew,
    Parent,
    ReusePolicy,
)
from perdure_schemas.events import RunEnded, Started
from perdure_schemas.messages import (
    ChildOutcome,
    ControlRun,
    ResumeRun,
    RunResult,
    StartReply,
    StartWorkflow,
    WaitForResult,
)
from tests.core.workflow_case import FAILURE, INBOX, WORKFLOW_ID, Case, Reaction, start, timer_fired

PARENT = Parent(workflow_id="p", run_id="p-1", command_id="c", generation=0)


def ended(status: str) -> Case:
    case = Case()
    case.start()
    match status:
        case "completed" | "canceled":
            how: CompletionStatus = status
            case.turn(completion=Completion(status=how, result=NULL))
        case "failed":
            case.turn(case.command("a"), completion=Completion(status="failed", failure=FAILURE, command_id="a"))
        case "terminated":
            case.send(ControlRun(workflow_id=WORKFLOW_ID, action="terminate"))
        case "timed-out":
            case.send(timer_fired(case, "run-timeout"))
    assert case.state.status == status
    return case


def again(case: Case, reuse: ReusePolicy, conflict: ConflictPolicy = "fail", run_id: str = "r2") -> Reaction:
    return case.send(start(run_id=run_id, conflict_policy=conflict, reuse_policy=reuse))


ENDS = ("completed", "failed", "canceled", "terminated", "timed-out")
FREE: dict[ReusePolicy, set[str]] = {"always": set(ENDS), "after-failure": set(ENDS[1:]), "never": set()}
"""After which ends another run may begin."""


@pytest.mark.parametrize("conflict", ["fail", "use-existing", "terminate-existing"])
@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("reuse", FREE)
def test_which_ends_let_another_run_begin(reuse: ReusePolicy, status: str, conflict: ConflictPolicy) -> None:
    case = ended(status)
    reaction = again(case, reuse, conflict)
    (reply,) = reaction.sent(StartReply)
    if status in FREE[reuse]:
        assert isinstance(reaction.events[-1], Started)
        assert (reply.status, reply.run_id, case.state.run_id) == ("ok", "r2", "r2")
        return
    assert reaction.recorded == []
    assert (reply.run_id, case.state.run_id) == ("r1", "r1")
    assert f"has ended: {status}" in reply.detail
    if conflict == "use-existing":
        assert reply.status == "ok"
    else:
        assert reply.status == "conflict"
        assert f'reuse "{reuse}" lets no other begin (reuse "always" does' in reply.detail


@pytest.mark.parametrize("reuse", FREE)
def test_open_runs_are_the_other_policys_matter(reuse: ReusePolicy) -> None:
    case = Case()
    case.start()
    (refused,) = again(case, reuse).sent(StartReply)
    remedy = 'conflict "use-existing" gives that run, "terminate-existing" replaces it'
    assert (refused.status, refused.run_id) == ("conflict", "r1")
    assert refused.detail == f"an open run has this id ({remedy})"
    (given,) = again(case, reuse, "use-existing", "r3").sent(StartReply)
    assert (given.status, given.run_id) == ("ok", "r1")


@pytest.mark.parametrize("reuse", FREE)
def test_a_run_that_the_start_itself_terminates_makes_room(reuse: ReusePolicy) -> None:
    """Or it would end one run and begin none."""
    case = Case()
    case.start()
    reaction = again(case, reuse, "terminate-existing")
    assert [type(event) for event in reaction.events] == [RunEnded, Started]
    assert case.state.run_id == "r2"


def test_it_makes_room_though_the_engine_died_between_the_two_commits() -> None:
    case = Case()
    case.start()
    message = case.message(start(run_id="r2", conflict_policy="terminate-existing", reuse_policy="never"))
    first = case.decide(message)
    assert isinstance(first, d.Record)
    assert first.again
    case._record(replace(first, again=False), message, Reaction(decision=first), hold=False)
    assert case.state.status == "terminated"
    assert again(case, "never", "terminate-existing", "r3").recorded == [], "another start is none of it"
    assert isinstance(case.deliver(message).events[0], Started)
    assert isinstance(case.deliver(message).decision, d.AlreadyRecorded)


@pytest.mark.parametrize("how", ["same message", "same run"])
def test_a_start_that_comes_again_after_the_end_is_answered_as_before(how: str) -> None:
    case = Case()
    first = start(run_id="r1", conflict_policy="use-existing", reuse_policy="never")
    message = case.message(first)
    case.deliver(message)
    case.turn(completion=Completion(status="completed", result=NULL))
    reaction = case.deliver(message) if how == "same message" else case.send(first)
    assert reaction.recorded == []
    assert [(reply.status, reply.run_id) for reply in reaction.sent(StartReply)] == [("ok", "r1")]


def test_one_that_was_answered_while_the_run_was_open_begins_none_when_it_is_delivered_again() -> None:
    case = Case()
    case.start()
    message = case.message(start(run_id="r2", conflict_policy="use-existing", reuse_policy="never"))
    (open_run,) = case.deliver(message).sent(StartReply)
    case.turn(completion=Completion(status="completed", result=NULL))
    (ended_run,) = case.deliver(message).sent(StartReply)
    assert (open_run.run_id, ended_run.run_id) == ("r1", "r1")
    result = case.send(WaitForResult(workflow_id=WORKFLOW_ID, run_id=ended_run.run_id, reply_topic=INBOX))
    assert [told.status for told in result.sent(RunResult)] == ["completed"]


def test_a_failed_run_that_was_kept_from_being_followed_can_be_resumed() -> None:
    """What it left open is closed by a run that follows it, and not by a start that is refused."""
    case = Case()
    case.start()
    case.turn(case.command("a"), case.command("b"))
    case.turn(completion=Completion(status="failed", failure=FAILURE))
    assert case.state.resumable
    assert again(case, "never").recorded == []
    assert case.state.resumable
    assert case.send(ResumeRun(workflow_id=WORKFLOW_ID, actor="", reply_topic=INBOX)).recorded
    assert case.state.status == "running"


def test_after_a_failure_what_the_failed_run_left_open_is_closed_first() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"), case.command("b"))
    case.turn(completion=Completion(status="failed", failure=FAILURE))
    reaction = again(case, "after-failure")
    assert [type(event) for event in reaction.events] == [RunEnded, Started]


@pytest.mark.parametrize("reuse", FREE)
def test_the_id_is_free_once_the_run_is_purged(reuse: ReusePolicy) -> None:
    case = ended("completed")
    case._purge("r1")
    assert isinstance(again(case, reuse).events[0], Started)
    assert again(case, reuse, "use-existing", "r1").recorded == [], "the purged run itself never begins again"


def continued() -> tuple[Case, str]:
    case = Case()
    case.start()
    next_run = ContinueAsNew(name="order", args=NULL)
    case.turn(completion=Completion(status="continued-as-new", next_run=next_run))
    assert case.state.ended is not None
    return case, case.state.ended.next_run_id


@pytest.mark.parametrize("reuse", FREE)
def test_what_continues_a_run_is_no_other(reuse: ReusePolicy) -> None:
    case, next_id = continued()
    assert isinstance(again(case, reuse, "use-existing").decision, d.Later)
    assert isinstance(again(case, reuse, run_id=next_id).events[0], Started)


@pytest.mark.parametrize(("reuse", "free"), [("always", True), ("after-failure", True), ("never", False)])
def test_a_chain_whose_next_start_got_lost_did_not_complete(reuse: ReusePolicy, free: bool) -> None:
    case, _ = continued()
    case.now += START_AGE_MAX_MS + 60_000
    assert bool(again(case, reuse).recorded) is free


def test_a_parent_is_told_that_the_id_of_its_child_is_not_free() -> None:
    """It is never given a run that another has started."""
    case = ended("completed")
    body = start(run_id="r2", parent=PARENT, conflict_policy="use-existing", reuse_policy="never")
    (told,) = case.send(body).sent(ChildOutcome)
    assert told.failure is not None
    assert (told.outcome, told.failure.name) == ("failed", "AlreadyStarted")
    assert "has ended: completed" in told.failure.message


def test_the_engine_starts_children_and_what_continues_a_run_after_any_end() -> None:
    case = Case()
    case.start()
    (child,) = case.turn(case.command("0", "child", child_id="kid")).sent(StartWorkflow)
    next_run = ContinueAsNew(name="order", args=NULL)
    ending = case.turn(completion=Completion(status="continued-as-new", next_run=next_run))
    (continuing,) = ending.sent(StartWorkflow)
    assert (child.reuse_policy, continuing.reuse_policy) == ("always", "always")
