"""A run moves to another build once a worker of that build has replayed it."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.moves import MOVE_CHECK_MAX_MS
from perdure_schemas.common import Failure, MoveCheck
from perdure_schemas.events import Rewound, RunMoved
from perdure_schemas.messages import CommandReply, MoveChecked, MoveRun, ResumeRun, RunWorkflowTask
from tests.core.workflow_case import INBOX, WORKFLOW_ID, Case, Reaction, signal

CHANGED = Failure(name="WorkflowChangedError", message="position 0: recorded charge, now refund")


def turned(*positions: str) -> Case:
    """A run that has had a turn."""
    case = Case()
    case.start()
    case.turn(*(case.command(position) for position in positions or ("a",)))
    return case


def move(case: Case, build: str | None = "b2", *, rescue: bool = False) -> Reaction:
    return case.send(MoveRun(workflow_id=WORKFLOW_ID, build=build, reply_topic=INBOX, rescue=rescue), id="question")


def asked(reaction: Reaction) -> MoveCheck:
    """The check a worker is asked for."""
    ((topic, message),) = [each for each in reaction.published if isinstance(each[1].body, RunWorkflowTask)]
    task = message.body
    assert isinstance(task, RunWorkflowTask)
    assert task.check is not None
    assert topic == f"workflow-run.order.{task.check.build}"
    assert not task.events
    assert task.committed == task.check.seq
    return task.check


def answer(case: Case, check: MoveCheck, failure: Failure | None = None, *, id: str = "") -> Reaction:
    body = MoveChecked(workflow_id=WORKFLOW_ID, run_id=case.state.run_id, check=check, failure=failure)
    return case.send(body, id=id)


def replies(reaction: Reaction) -> list[tuple[str, str, str | None]]:
    """(status, detail, the question) of each."""
    bodies = [(m.body, m.causation_id) for _, m in reaction.published]
    return [(body.status, body.detail, cause) for body, cause in bodies if isinstance(body, CommandReply)]


def test_a_run_moves_when_a_worker_of_the_build_has_replayed_it() -> None:
    case = turned()
    reaction = move(case)
    assert not reaction.events
    assert replies(reaction) == []
    reaction = answer(case, asked(reaction))
    assert reaction.events == [RunMoved(build="b2", reason="", actor="")]
    assert replies(reaction) == [("ok", "", "question")]
    assert case.state.build == "b2"
    (topic,) = [topic for topic, m in reaction.published if isinstance(m.body, RunWorkflowTask)]
    assert topic == "workflow-run.order.b2"


def test_a_run_that_has_done_nothing_yet_moves_at_once() -> None:
    case = Case()
    case.start()
    case.fail_turn()
    reaction = move(case)
    assert reaction.events == [RunMoved(build="b2", reason="", actor="")]
    topics = [topic for topic, message in reaction.published if isinstance(message.body, RunWorkflowTask)]
    assert topics == ["workflow-run.order.b2"]
    assert case.state.status == "running"


def test_a_run_that_the_build_cannot_replay_stays() -> None:
    case = turned()
    reaction = answer(case, asked(move(case)), CHANGED)
    assert not reaction.events
    ((status, detail, question),) = replies(reaction)
    assert (status, question) == ("refused", "question")
    assert "build 'b2' cannot replay the run: WorkflowChangedError: position 0: recorded charge" in detail
    assert case.state.build is None


def test_what_a_run_decides_during_the_check_is_checked_too() -> None:
    case = turned()
    check = asked(move(case))
    case.turn(case.command("b"))
    reaction = answer(case, check)
    assert not reaction.events
    again = asked(reaction)
    assert (again.question, again.seq) == ("question", case.state.seq)
    assert answer(case, again).events == [RunMoved(build="b2", reason="", actor="")]


def test_a_rewind_during_the_check_is_checked_too() -> None:
    case = turned()
    case.fail_turn()
    check = asked(move(case))
    assert isinstance(case.send(ResumeRun(workflow_id=WORKFLOW_ID)).events[0], Rewound)
    assert isinstance(answer(case, check).decision, d.CheckMove)


def test_events_that_no_turn_has_seen_need_no_check() -> None:
    case = turned()
    check = asked(move(case))
    case.send(signal(1))
    assert answer(case, check).events == [RunMoved(build="b2", reason="", actor="")]


def test_a_question_moves_a_run_once() -> None:
    """It may have been asked twice, and the run moved on since."""
    case = turned()
    check = asked(move(case))
    answer(case, check, id="answer")
    answer(case, asked(move(case, "b3")))
    assert isinstance(answer(case, check, id="answer").decision, d.AlreadyRecorded)
    assert case.state.build == "b3"


@pytest.mark.parametrize("late_ms", [0, 1])
def test_nobody_waits_for_a_late_check(late_ms: int) -> None:
    case = turned()
    check = asked(move(case))
    case.now = check.asked_at + MOVE_CHECK_MAX_MS + late_ms - 1_000  # a message comes a second later
    reaction = answer(case, check)
    assert [isinstance(event, RunMoved) for event in reaction.events] == [True] * (1 - late_ms)
    assert [status for status, _, _ in replies(reaction)] == ["refused" if late_ms else "ok"]


def test_only_a_stuck_run_is_rescued() -> None:
    case = turned()
    assert isinstance(move(case, rescue=True).decision, d.Discard)
    case.fail_turn()
    check = asked(move(case, rescue=True))
    case.turn(case.command("b"))  # it got unstuck
    reaction = answer(case, check)
    assert not reaction.events
    assert replies(reaction) == [("refused", "the run is not stuck", "question")]
    case.fail_turn()
    assert answer(case, asked(move(case, rescue=True))).events == [RunMoved(build="b2", reason="", actor="")]
