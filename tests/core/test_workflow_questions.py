"""Updates and queries: answered once, as of the last turn in force, by a run that can."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine import state
from perdure_schemas.common import NULL, Address, Query
from perdure_schemas.messages import (
    QueryResult,
    QueryRun,
    RunWorkflowTask,
    UpdateResult,
    UpdateRun,
)
from tests.core.workflow_case import (
    COMPLETED,
    INBOX,
    WORKFLOW_ID,
    Case,
    control,
    task_outcome,
)


def update(id: str = "u", run_id: str = "") -> UpdateRun:
    return UpdateRun(workflow_id=WORKFLOW_ID, update_id=id, name="add", args=NULL, reply_topic=INBOX, run_id=run_id)


def test_an_update_is_answered_once() -> None:
    case = Case()
    case.start()
    case.turn()
    case.send(update())
    answer = case.command("u.u", "update-result", target="u", name=INBOX)
    assert [result.status for result in case.turn(answer).sent(UpdateResult)] == ["ok"]
    assert case.state.updates == {}


@pytest.mark.parametrize("ended", [False, True])
def test_an_update_that_is_asked_for_again_is_answered_as_before_and_not_applied_again(ended: bool) -> None:
    case = Case()
    case.start()
    case.turn()
    case.send(update())
    assert case.send(update()).recorded == []
    case.turn(case.command("u.u", "update-result", target="u", name=INBOX))
    if ended:
        case.turn(completion=COMPLETED)
    again = case.send(update())
    assert again.recorded == []
    assert [(result.update_id, result.status) for result in again.sent(UpdateResult)] == [("u", "ok")]


def test_an_update_whose_answer_is_not_kept_any_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ANSWERS_MAX", 1)
    case = Case()
    case.start()
    case.turn()
    for id in ("u", "v"):
        case.send(update(id))
        case.turn(case.command(f"u.{id}", "update-result", target=id, name=INBOX))
    again = case.send(update("u"))
    assert again.recorded == []
    (result,) = again.sent(UpdateResult)
    assert result.status == "refused"
    assert result.failure is not None
    assert "not kept" in result.failure.message
    assert [each.status for each in case.send(update("v")).sent(UpdateResult)] == ["ok"]


@pytest.mark.parametrize("end", ["complete", "terminate"])
def test_an_update_the_end_overtook_is_refused(end: str) -> None:
    case = Case()
    case.start()
    case.turn()
    case.send(update())
    reaction = case.turn(completion=COMPLETED) if end == "complete" else case.send(control("terminate"))
    assert [(result.update_id, result.status) for result in reaction.sent(UpdateResult)] == [("u", "refused")]


def test_an_update_of_another_run_is_not_found() -> None:
    case = Case()
    case.start()
    assert [result.status for result in case.send(update(run_id="r7")).sent(UpdateResult)] == ["not-found"]


def query() -> QueryRun:
    return QueryRun(
        workflow_id=WORKFLOW_ID, query=Query(query_id="q", name="total", args=NULL, reply_to=Address(INBOX, ""))
    )


def test_a_query_rests_on_the_last_turn_in_force() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    asked_at = case.now
    case.send(task_outcome(case, case.known("a")))
    (asked,) = case.send(query(), at=asked_at).sent(RunWorkflowTask)
    assert asked.base == 1, "what came after the question is not waited for"
    assert asked.events == []


def test_a_query_sees_what_was_recorded_before_it_was_asked() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(task_outcome(case, case.known("a")))
    recorded = case.state.seq
    assert isinstance(case.send(query()).decision, d.Later)
    case.turn()
    (asked,) = case.send(query()).sent(RunWorkflowTask)
    assert asked.base == recorded


@pytest.mark.parametrize("state", ["stuck", "terminated", "paused"])
def test_a_query_of_a_run_that_never_had_a_turn_is_refused(state: str) -> None:
    case = Case()
    case.start()
    assert isinstance(case.send(query()).decision, d.Later)
    if state == "stuck":
        case.fail_turn()
    else:
        case.send(control("terminate" if state == "terminated" else "pause"))
    (answer,) = case.send(query()).sent(QueryResult)
    assert answer.status == "refused"
    assert answer.failure is not None
