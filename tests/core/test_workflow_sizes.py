"""Whatever a run asks to be published fits into a message of 1 MB, or the run is stuck and says what is too large."""

from __future__ import annotations

import msgspec
import pytest

from perdure_core.workflow_engine.requests import CARRIED_BYTES_MAX, carries
from perdure_core.workflow_engine.sizes import SENT_BYTES_MAX
from perdure_schemas.common import NULL, Completion, ContinueAsNew, Failure, Payload
from perdure_schemas.events import Stuck
from perdure_schemas.messages import ResumeRun, RunTask, SendSignal, StartWorkflow, TaskOutcome
from tests.core.workflow_case import WORKFLOW_ID, Case

MESSAGE_BYTES_MAX = 1024 * 1024
BIG = Payload("json", b"b" * 90_000)
TOO_BIG = Payload("json", b"b" * (SENT_BYTES_MAX + 1))


def encoded(body: object) -> int:
    return len(msgspec.msgpack.encode(body))


def outcome(case: Case, position: str, failure: Failure) -> TaskOutcome:
    command = case.known(position)
    return TaskOutcome(
        workflow_id=WORKFLOW_ID,
        run_id=case.state.run_id,
        command_id=command.id,
        generation=0,
        attempt=1,
        outcome="failed",
        failure=failure,
    )


@pytest.mark.parametrize(
    "failure",
    [
        Failure(name="E", message="no", details=BIG),
        Failure(
            name="E", message="no", cause=Failure(name="E", message="no", cause=Failure(name="E", message="b" * 90_000))
        ),
        Failure(name="E", message="\N{SNOWMAN}" * 30_000),
    ],
    ids=["details", "causes", "bytes not characters"],
)
def test_failures_count_with_all_they_say(failure: Failure) -> None:
    case = Case()
    case.start()
    case.turn(*(case.command(f"t{index}") for index in range(20)))
    for index in range(20):
        case.send(outcome(case, f"t{index}", failure), hold=True)
        assert carries(case.state) == ((index + 1) * 90_000 < CARRIED_BYTES_MAX)
        case.flush()
        assert encoded(case.asked()) < MESSAGE_BYTES_MAX


def test_commands_of_dropped_turns_go_without_data_that_does_not_fit() -> None:
    case = Case()
    case.start()
    case.turn(case.command("a"))
    case.send(outcome(case, "a", Failure(name="E", message="no")))
    for index in range(12):
        case.turn(case.command(f"c{index}", args=BIG))
    case.turn(
        completion=Completion(status="failed", failure=Failure(name="E", message="no"), command_id=case.known("a").id)
    )
    case.send(ResumeRun(workflow_id=WORKFLOW_ID, actor="somebody", anyway=True))
    asked = case.asked()
    assert [command.position for command in asked.adoptable] == [f"c{index}" for index in range(12)]
    assert encoded(asked) < MESSAGE_BYTES_MAX


def stuck_by(case: Case, reaction_events: list[object]) -> str:
    (event,) = reaction_events
    assert isinstance(event, Stuck)
    return event.failure.message


def test_a_command_that_cannot_be_sent_makes_the_run_stuck() -> None:
    case = Case()
    case.start()
    reaction = case.turn(case.command("a", args=TOO_BIG))
    assert stuck_by(case, list(reaction.events)).startswith("the task at position a has 1,000,")
    assert reaction.sent(RunTask) == []


def test_an_outcome_that_cannot_be_sent_makes_the_run_stuck() -> None:
    case = Case()
    case.start()
    reaction = case.turn(completion=Completion(status="completed", result=TOO_BIG))
    assert stuck_by(case, list(reaction.events)).startswith("the run's outcome has 1,000,001 bytes")


def test_a_next_run_fits_with_the_signals_it_gets_or_the_run_is_stuck() -> None:
    case = Case()
    case.start()
    for number in range(12):
        case.send(SendSignal(workflow_id=WORKFLOW_ID, channel="c", payload=BIG, sender="s", number=number + 1))
    seqs = sorted(case.state.signals)
    following = ContinueAsNew(name="order", args=NULL, unreceived=seqs)
    reaction = case.turn(completion=Completion(status="continued-as-new", next_run=following))
    assert "with 12 signals that were not received, has 1,08" in stuck_by(case, list(reaction.events))
    fitting = ContinueAsNew(name="order", args=NULL, unreceived=seqs[:11])
    (start,) = case.turn(completion=Completion(status="continued-as-new", next_run=fitting)).sent(StartWorkflow)
    assert encoded(start) < MESSAGE_BYTES_MAX
