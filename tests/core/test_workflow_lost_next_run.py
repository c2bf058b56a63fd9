"""A run continued as a new one whose start never comes: what waits for it does not wait for ever."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.start import START_AGE_MAX_MS
from perdure_schemas.common import NULL, Completion, ContinueAsNew
from perdure_schemas.messages import ControlRun, SendSignal, UpdateRun, WaitForResult, WorkflowMessage
from tests.core.workflow_case import INBOX, WORKFLOW_ID, Case, start


def continued() -> Case:
    case = Case()
    case.start()
    next_run = ContinueAsNew(name="order", args=NULL)
    case.turn(completion=Completion(status="continued-as-new", next_run=next_run))
    return case


def next_run_id(case: Case) -> str:
    assert case.state.ended is not None
    return case.state.ended.next_run_id


def waiting(case: Case) -> list[WorkflowMessage]:
    return [
        SendSignal(workflow_id=WORKFLOW_ID, channel="c", payload=NULL, sender="s", number=1),
        ControlRun(workflow_id=WORKFLOW_ID, action="cancel"),
        UpdateRun(workflow_id=WORKFLOW_ID, update_id="u", name="n", args=NULL, reply_topic=INBOX),
        WaitForResult(workflow_id=WORKFLOW_ID, reply_topic=INBOX, run_id=next_run_id(case)),
        start(run_id="another"),
    ]


@pytest.mark.parametrize("index", range(5), ids=["signal", "control", "update", "wait", "start"])
def test_it_waits_as_long_as_the_start_would_be_taken(index: int) -> None:
    case = continued()
    case.now += START_AGE_MAX_MS - 60_000
    assert isinstance(case.send(waiting(case)[index]).decision, d.Later)
    case.now += 120_000
    decision = case.send(waiting(case)[index]).decision
    assert isinstance(decision, d.Record if index == 4 else d.Discard | d.FindEnd)


def test_the_next_run_itself_never_waits() -> None:
    case = continued()
    assert isinstance(case.send(start(run_id=next_run_id(case))).decision, d.Record)
