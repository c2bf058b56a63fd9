"""Enums are strings. What a newer writer's value means to this reader stands in the schema."""

from __future__ import annotations

import pytest

from perdure_schemas import schema
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.coders import STRUCTS
from perdure_schemas.common import NULL, WaitGroup, WaitsFor
from perdure_schemas.messages import (
    ControlRun,
    Message,
    RunResult,
    StartWorkflow,
    TaskOutcome,
    WorkflowTaskCompleted,
)
from tests.schemas.conftest import sample_message

READ_AS_ANOTHER = {
    "Command.build_policy": "current",
    "Command.close_policy": "cancel",
    "CommandReply.status": "refused",
    "ContinueAsNew.build_policy": "current",
    "Parent.close_policy": "cancel",
    "QueryResult.status": "refused",
    "RunResult.status": "failed",
    "StartReply.status": "refused",
    "StartWorkflow.conflict_policy": "fail",
    "StartWorkflow.reuse_policy": "always",
    "Stuck.kind": "bug",
    "TaskResult.outcome": "failed",
    "UpdateResult.status": "refused",
    "WaitGroup.op": "any",
    "WorkflowTaskFailed.kind": "bug",
}
"""The value that harms least: the default of an option, a wait that ends early, an answer that is no success."""
REFUSED = {
    "AttemptOutcome.outcome",
    "ChildOutcome.outcome",
    "Command.kind",
    "CommandSettled.outcome",
    "CompleteTask.outcome",
    "Completion.status",
    "ControlRun.action",
    "RunChanged.status",
    "RunEnded.status",
    "TaskChanged.status",
    "TaskOutcome.outcome",
    "TimerFired.kind",
}
"""A guess would be recorded for good. The message waits as a dead letter for a reader that knows the value."""


def test_each_enum_says_what_an_unknown_value_is_read_as() -> None:
    fields = {
        f"{name}.{each['name']}": each
        for name in STRUCTS
        if name != "Message"
        for each in schema.record(name)["fields"]
        if "symbols" in each
    }
    assert {name: each["unknown"] for name, each in fields.items() if "unknown" in each} == READ_AS_ANOTHER
    assert {name for name, each in fields.items() if "unknown" not in each} == REFUSED


def renamed(message: Message, old: str, new: str) -> bytes:
    """The message as a newer writer has it, with a value of the same length."""
    data = encode(message)
    assert data.count(old.encode()) == 1
    assert len(old) == len(new)
    return data.replace(old.encode(), new.encode())


def message(body: object) -> Message:
    return Message(id="i", namespace="n", key="k", at=1, body=body)  # type: ignore[arg-type]


def test_an_unknown_option_is_read_as_the_default() -> None:
    start = StartWorkflow(workflow_id="w", run_id="r", name="n", args=NULL, conflict_policy="terminate-existing")
    body = decode(renamed(message(start), "terminate-existing", "terminate-all-busy")).body
    assert isinstance(body, StartWorkflow)
    assert body.conflict_policy == "fail"


def test_an_unknown_end_is_no_success() -> None:
    result = RunResult(workflow_id="w", run_id="r", status="completed")
    body = decode(renamed(message(result), "completed", "evaporate")).body
    assert isinstance(body, RunResult)
    assert body.status == "failed"


def test_an_unknown_wait_ends_with_its_first_member() -> None:
    turn = WorkflowTaskCompleted(
        workflow_id="w",
        run_id="r",
        workflow_task_id="t",
        generation=0,
        committed=0,
        base=1,
        base_hash="h",
        hashes=[],
        commands=[],
        waits_for=WaitsFor(groups=[WaitGroup("all_or_fail", ["c"])]),
    )
    body = decode(renamed(message(turn), "all_or_fail", "two_of_them")).body
    assert isinstance(body, WorkflowTaskCompleted)
    assert body.waits_for.groups == [WaitGroup("any", ["c"])]


@pytest.mark.parametrize(
    ("control", "old", "new", "where"),
    [
        (ControlRun(workflow_id="w", action="terminate"), "terminate", "evaporate", "ControlRun.action"),
        (
            TaskOutcome(workflow_id="w", run_id="r", command_id="c", generation=0, attempt=1, outcome="completed"),
            "completed",
            "postponed",
            "TaskOutcome.outcome",
        ),
    ],
)
def test_an_unknown_value_to_act_on_is_refused_and_named(control: object, old: str, new: str, where: str) -> None:
    with pytest.raises(CodecError, match=f"{where} is '{new}'"):
        decode(renamed(message(control), old, new))


def test_an_unknown_value_is_not_written() -> None:
    with pytest.raises(CodecError, match="evaporate"):
        encode(message(ControlRun(workflow_id="w", action="evaporate")))  # type: ignore[arg-type]


def test_an_unknown_event_of_a_history_is_refused_and_named() -> None:
    page = sample_message(STRUCTS["HistoryPage"])
    data = encode(page).replace(b"\x10Unpaused", b"\x10Evaporat")
    assert data != encode(page)
    with pytest.raises(CodecError, match=r"Event\.type is 'Evaporat'"):
        decode(data)
