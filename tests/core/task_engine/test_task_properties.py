"""`decide` on whatever comes: it always answers, a repetition changes nothing, the order does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_core.task_engine.decide import decide
from perdure_core.task_engine.decisions import Ask, Authority, Decision, Discard, Emit, Header, Hold, Save
from perdure_core.task_engine.state import TaskRecord, decode, encode
from perdure_schemas.common import Outcome, RetryPolicy, TaskOptions
from perdure_schemas.messages import DispatchTask, RunTask, ScheduleTimer, TaskMessage, TaskOutcome
from tests.core.task_engine.samples import (
    OPEN,
    RETRY,
    SETTLED,
    SKIP,
    WAIT,
    WORKER,
    cancel,
    fired,
    heartbeat,
    outcome,
    published,
    started,
    task,
    told,
)

OPTIONS = TaskOptions(
    retry=RetryPolicy(attempts_max=3, initial_delay_ms=100, jitter=0.0),
    queue_timeout_ms=700,
    attempt_timeout_ms=900,
    heartbeat_timeout_ms=300,
    total_timeout_ms=5_000,
)
MANY = settings(max_examples=300, deadline=None)
OUTCOMES: list[Outcome] = ["completed", "failed", "timed-out", "canceled", "skipped", "fired"]
COMMANDS: list[TaskMessage] = [RETRY, SKIP, WAIT, cancel()]
ENDED = {"failed", "timed-out", "canceled"}


@st.composite
def messages(draw: st.DrawFn, generation: int, alone: bool) -> TaskMessage:
    """Any message, of any attempt and generation around the current ones."""
    number = draw(st.integers(0, 4))
    of = task(draw(st.integers(0, generation)), alone=alone, options=OPTIONS)
    carried = draw(st.sampled_from([of, None]))
    kinds = st.sampled_from(["dispatch", "outcome", "started", "heartbeat", "person", "cancel", "timer"])
    match draw(kinds):
        case "dispatch":
            return of
        case "outcome":
            how = draw(st.sampled_from(OUTCOMES))
            return outcome(how, number, of.generation, of=carried, delegated=draw(st.booleans()))
        case "started":
            return started(number, of.generation, deliveries=draw(st.integers(1, 5)), of=carried)
        case "heartbeat":
            return heartbeat(number, of.generation)
        case "cancel":
            return cancel(by_workflow=not alone, generation=of.generation)
        case "timer":
            return fired(draw(st.integers(0, 9_000)), number, of=of)
        case _:
            return draw(st.sampled_from(COMMANDS))


class World:
    """A record, as the driver keeps it. `alone` tasks have no history to ask."""

    def __init__(self) -> None:
        self.record: TaskRecord | None = None
        self.dispatched: list[str] = []
        """Attempts published by transitions; repetitions aside."""

    def take(
        self, message: TaskMessage, id: str, at: int, *, waited: bool = True, authority: Authority = OPEN
    ) -> Decision:
        header = Header(id=id, at=at, namespace="n", waited=waited)
        decision = decide(self.record, message, header, None)
        if isinstance(decision, Ask):
            decision = decide(self.record, message, header, authority)
        assert not isinstance(decision, Ask), "the history was read"
        if isinstance(decision, Save):
            before = 0 if self.record is None else self.record.version
            assert decision.record.version == before + 1
            assert decode(encode(decision.record)) == decision.record
            self.record = decision.record
            self.dispatched += [run.attempt_id for run in published(decision, RunTask)]
        return decision


def essence(record: TaskRecord | None) -> object:
    """What a repetition must not change."""
    if record is None:
        return None
    return record.status, record.generation, record.attempt, record.result, record.failure, record.task, record.closed


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[TaskMessage, int, bool, Authority]]:
    alone = draw(st.booleans())
    steps = []
    at = 1_000
    for _ in range(draw(st.integers(1, 12))):
        at += draw(st.integers(0, 1_000))
        message = draw(messages(2, alone))
        authority = draw(st.sampled_from([OPEN, OPEN, OPEN, SETTLED, Authority(state="ended")]))
        steps.append((message, at, draw(st.booleans()), authority))
    return steps


@MANY
@given(histories())
def test_any_message_in_any_state_has_an_answer(steps: list[tuple[TaskMessage, int, bool, Authority]]) -> None:
    world = World()
    for number, (message, at, waited, authority) in enumerate(steps):
        decision = world.take(message, f"m{number}", at, waited=waited, authority=authority)
        assert not (waited and isinstance(decision, Hold)), "it has waited"
        record = world.record
        if isinstance(decision, Save):
            assert (decision.ttl_ms is None) == decision.record.open
            timers = [m for _, m in (*decision.before, *decision.effects) if isinstance(m.body, ScheduleTimer)]
            if record is not None and record.open and decision.record.cause == f"m{number}":
                assert timers, "every open record has a timer (rule 24)"


@MANY
@given(histories())
def test_the_same_message_twice_is_as_good_as_once(
    steps: list[tuple[TaskMessage, int, bool, Authority]],
) -> None:
    world = World()
    for number, (message, at, _, authority) in enumerate(steps):
        world.take(message, f"m{number}", at, authority=authority)
        once, sent = essence(world.record), list(world.dispatched)
        world.take(message, f"m{number}", at, authority=authority)
        assert essence(world.record) == once
        assert world.dispatched == sent


@MANY
@given(histories(), st.data())
def test_a_message_that_was_obeyed_changes_nothing_when_it_comes_again_later(
    steps: list[tuple[TaskMessage, int, bool, Authority]], data: st.DataObject
) -> None:
    """As it comes after a lost acknowledgement: behind others, and of a history that goes on as real ones do."""
    world, obeyed = World(), list[int]()
    generation = 0
    for number, (message, at, _, authority) in enumerate(steps):
        if _of_another_life(message, generation):
            if world.record is None or world.record.status not in ENDED or not isinstance(message, DispatchTask):
                continue  # a rewind dispatches anew only what failed
            generation = message.generation
        if isinstance(world.take(message, f"m{number}", at, authority=authority), Save):
            obeyed.append(number)
    if not obeyed:
        return
    again = data.draw(st.sampled_from(obeyed))
    message, at, _, _ = steps[again]
    before, sent = essence(world.record), list(world.dispatched)
    decision = world.take(message, f"m{again}", at, authority=OPEN)
    assert essence(world.record) == before, decision
    assert world.dispatched == sent


def _of_another_life(message: TaskMessage, generation: int) -> bool:
    of = getattr(message, "task", None)
    carried = generation if of is None else of.generation
    return {getattr(message, "generation", generation), carried} != {generation}


@MANY
@given(histories())
def test_no_attempt_is_dispatched_twice_by_different_messages(
    steps: list[tuple[TaskMessage, int, bool, Authority]],
) -> None:
    world = World()
    for number, (message, at, _, authority) in enumerate(steps):
        world.take(message, f"m{number}", at, authority=authority)
    assert len(world.dispatched) == len(set(world.dispatched))


@MANY
@given(histories())
def test_no_attempt_after_an_outcome(steps: list[tuple[TaskMessage, int, bool, Authority]]) -> None:
    """Invariant 8: whatever comes once the history has the outcome, no RunTask of a workflow's task is published."""
    world = World()
    half = len(steps) // 2
    for number, (message, at, _, _) in enumerate(steps):
        settled = number >= half
        decision = world.take(message, f"m{number}", at, authority=SETTLED if settled else OPEN)
        if settled and isinstance(decision, Save | Emit | Discard):
            assert not [run for run in published(decision, RunTask) if run.workflow is not None]
            if half:
                repeated = world.take(steps[half - 1][0], f"m{half - 1}", at, authority=SETTLED)
                assert not [run for run in published(repeated, RunTask) if run.workflow is not None]


# --- order ----------------------------------------------------------------------------------------


def deliver(messages: Sequence[TaskMessage], authority: Authority) -> tuple[TaskRecord | None, list[Decision]]:
    """As the driver does: what is held is decided when there is a record, at last when its time is over."""
    world, held, decisions = World(), list[tuple[int, TaskMessage]](), list[Decision]()
    for number, message in enumerate(messages):
        decision = world.take(message, f"m{number}", 1_000, waited=False, authority=authority)
        if isinstance(decision, Hold):
            held.append((number, message))
            continue
        decisions.append(decision)
        if isinstance(decision, Save):
            decisions += [world.take(m, f"m{n}", 1_000, authority=authority) for n, m in held]
            held.clear()
    decisions += [world.take(m, f"m{n}", 1_000, authority=authority) for n, m in held]
    return world.record, decisions


GIVEN = task(options=OPTIONS)


def orders(messages: Sequence[TaskMessage]) -> list[tuple[TaskMessage, ...]]:
    return list(permutations(messages))


def name(messages: Sequence[TaskMessage]) -> str:
    return "-".join(type(message).__name__ for message in messages)


@pytest.mark.parametrize("messages", orders([GIVEN, started(of=GIVEN), heartbeat(), outcome("completed")]), ids=str)
def test_a_success_in_any_order_leaves_nothing_open(messages: tuple[TaskMessage, ...]) -> None:
    record, _ = deliver(messages, SETTLED)
    assert record is None or not record.open


@pytest.mark.parametrize(
    "messages",
    orders([task(), started(of=task()), heartbeat(), outcome("failed", of=task())]),
    ids=name,
)
def test_a_failure_in_any_order_is_told(messages: tuple[TaskMessage, ...]) -> None:
    record, decisions = deliver(messages, OPEN)
    assert record is not None
    assert record.status == "failed"
    assert [told.outcome for d in decisions for told in published(d, TaskOutcome)] == ["failed"]


@pytest.mark.parametrize("messages", orders([GIVEN, started(of=GIVEN), cancel(by_workflow=True)]), ids=name)
def test_a_cancel_in_any_order_is_told_and_stops_who_announced_itself(messages: tuple[TaskMessage, ...]) -> None:
    record, decisions = deliver(messages, OPEN)
    assert record is not None
    assert record.status == "canceled"
    assert {told.outcome for d in decisions for told in published(d, TaskOutcome)} == {"canceled"}
    assert WORKER in [topic for d in decisions for topic in told(d)]


@pytest.mark.parametrize("command", [cancel(), SKIP, WAIT])
@pytest.mark.parametrize("first", [True, False])
def test_a_person_may_be_faster_than_the_dispatch(command: TaskMessage, first: bool) -> None:
    alone = task(alone=True)
    record, _ = deliver([command, alone] if first else [alone, command], OPEN)
    assert record is not None
    expected = {"CancelTask": "canceled", "CompleteTask": "skipped", "WaitForTask": "queued"}
    assert record.status == expected[type(command).__name__]
