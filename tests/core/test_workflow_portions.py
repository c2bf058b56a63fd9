"""What does not fit into one message: a turn's portions, and events that are read from the history."""

from __future__ import annotations

from msgspec.structs import replace

from perdure_core.workflow_engine.requests import CARRIED_BYTES_MAX, carries
from perdure_schemas.common import Payload, WaitGroup, WaitsFor
from perdure_schemas.messages import RunWorkflowTask
from tests.core.workflow_case import Case, signal, task_outcome

AT_ONCE = WaitsFor([WaitGroup("all", [])])


def test_after_a_portion_the_next_turn_is_asked_for_at_once() -> None:
    case = Case()
    case.start()
    first = case.turn(case.command("0"), waits=AT_ONCE)
    (asked,) = first.sent(RunWorkflowTask)
    assert asked.base == case.state.seq
    assert not asked.events
    last = case.turn(case.command("1"), asked=asked)
    assert not last.sent(RunWorkflowTask), "the last portion says what the run waits for"
    assert case.send(task_outcome(case, case.known("1"))).sent(RunWorkflowTask)


def test_events_too_many_for_a_message_are_left_to_the_history() -> None:
    case = Case()
    case.start()
    case.turn(case.command("0"))
    large = Payload("bytes", bytes(CARRIED_BYTES_MAX // 2))
    case.send(replace(signal(1), payload=large))
    assert carries(case.state)
    assert [event.seq for event in case.asked().events] == [3]
    case.send(replace(signal(2), payload=large))
    assert not carries(case.state)
    asked = case.asked()
    assert (asked.events, asked.hashes) == ([], [])
    assert asked.previous_nonce == "", "so no worker takes its live run for what the turn begins with"
    assert asked.base == asked.committed == case.state.seq
    case.turn(asked=asked)
    assert not case.state.unfed
