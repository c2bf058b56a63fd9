"""The part of a history that is in force, after rewinds of every shape."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from perdure_core.history import effective
from perdure_schemas.common import NULL, Command, Failure, Outcome, RunOptions, WaitsFor
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
    Event,
    Recorded,
    Rewound,
    RunEnded,
    SignalReceived,
    Started,
    Stuck,
    TurnCommitted,
)


def started() -> Event:
    return Started(run_id="r", name="W", args=NULL, options=RunOptions())


def turn(*ids: str, cancels: Sequence[str] = ()) -> Event:
    commands = [Command(id=id, position=id, kind="task") for id in ids]
    commands += [Command(id=f"{id}!", position=f"{id}!", kind="cancel", target=id) for id in cancels]
    return TurnCommitted(workflow_task_id="t", base=0, nonce="n", generation=0, commands=commands, waits_for=WaitsFor())


def settled(id: str, outcome: Outcome = "completed") -> Event:
    return CommandSettled(command_id=id, outcome=outcome)


def signal() -> Event:
    return SignalReceived(channel="c", payload=NULL, sender="s", number=1)


def rewound(to: int) -> Event:
    return Rewound(to_seq=to, generation=1, reason="", actor="")


def ended() -> Event:
    return RunEnded(status="failed", failure=Failure(name="E", message=""))


def stuck() -> Event:
    return Stuck(workflow_task_id="t", kind="bug", failure=Failure(name="E", message=""))


def history(*events: Event) -> list[Recorded]:
    return [Recorded(seq=seq, at=seq, cause=str(seq), event=event) for seq, event in enumerate(events, 1)]


def in_force(*events: Event) -> list[int]:
    return [record.seq for record in effective(history(*events))]


def test_empty_history() -> None:
    assert effective([]) == []


def test_without_rewind_all_is_in_force() -> None:
    assert in_force(started(), turn("a"), settled("a", "failed"), turn(), ended()) == [1, 2, 3, 4, 5]


def test_a_repeated_outcome_counts_once() -> None:
    assert in_force(started(), turn("a"), settled("a"), settled("a", "failed")) == [1, 2, 3]


def test_an_outcome_of_a_command_never_issued_does_not_count() -> None:
    assert in_force(started(), turn("a"), settled("b")) == [1, 2]


def test_rewind_drops_the_failure_and_the_turn_it_led_to() -> None:
    events = started(), turn("a"), settled("a", "failed"), turn(), ended(), rewound(2)
    assert in_force(*events) == [1, 2, 6]


def test_rewind_drops_stuck() -> None:
    assert in_force(started(), turn("a"), settled("a"), stuck(), rewound(3)) == [1, 2, 3, 5]


def test_rewind_keeps_successes_signals_and_cancels_in_order() -> None:
    events = (
        started(),
        turn("a", "b"),
        settled("b", "failed"),
        settled("a"),
        signal(),
        turn("c"),
        settled("c"),
        CancelRequested(reason="", actor=""),
        rewound(2),
    )
    assert in_force(*events) == [1, 2, 4, 5, 8, 9]


def test_rewind_drops_the_cancel_that_ended_the_run() -> None:
    cancel = CancelRequested(reason="", actor="")
    canceled = RunEnded(status="canceled")
    assert in_force(started(), turn("a"), cancel, turn(), canceled, rewound(2)) == [1, 2, 6]
    assert in_force(started(), cancel, turn("a"), canceled, rewound(2)) == [1, 2, 5]
    assert in_force(started(), turn("a"), cancel, turn(), ended(), rewound(2)) == [1, 2, 3, 6]
    assert in_force(started(), turn("a"), cancel, turn(), canceled, rewound(2), cancel) == [1, 2, 6, 7]


def test_rewind_keeps_the_cancel_that_the_workflow_itself_asked_for() -> None:
    events = (
        started(),
        turn("a", "b"),
        signal(),
        turn(cancels=["a"]),
        settled("a", "canceled"),
        settled("b", "canceled"),
    )
    assert in_force(*events, rewound(4)) == [1, 2, 3, 4, 5, 7]


def test_an_adopted_command_is_settled_by_the_outcome_recorded_after_its_new_turn() -> None:
    events = started(), turn("a"), settled("a"), turn("b"), settled("b"), rewound(3), turn("b"), settled("b")
    assert in_force(*events) == [1, 2, 3, 6, 7, 8]


def test_a_later_failure_counts_again() -> None:
    events = started(), turn("a"), settled("a", "failed"), rewound(2), settled("a", "failed"), turn(), ended()
    assert in_force(*events) == [1, 2, 4, 5, 6, 7]


def test_rewinds_one_after_the_other() -> None:
    events = (
        started(),
        turn("a"),
        settled("a", "failed"),
        rewound(2),
        settled("a"),
        turn("b"),
        settled("b", "failed"),
        rewound(6),
        settled("b"),
    )
    assert in_force(*events) == [1, 2, 4, 5, 6, 8, 9]


def test_a_second_rewind_around_the_first() -> None:
    events = (
        started(),
        turn("a"),
        settled("a"),
        turn("b"),
        settled("b", "failed"),
        rewound(4),
        turn("c"),
        rewound(1),
        turn("a"),
        settled("a"),
    )
    assert in_force(*events) == [1, 6, 8, 9, 10]


def test_a_second_rewind_into_the_region_of_the_first() -> None:
    events = started(), turn("a"), signal(), turn("b"), signal(), rewound(2), turn("c"), rewound(4)
    assert in_force(*events) == [1, 2, 3, 5, 6, 8]


EVENTS = st.lists(
    st.one_of(
        st.builds(turn, st.sampled_from("abc")),
        st.builds(lambda id: turn(cancels=[id]), st.sampled_from("abc")),
        st.builds(settled, st.sampled_from("abc"), st.sampled_from(["completed", "failed", "canceled", "fired"])),
        st.just(signal()),
        st.just(ended()),
        st.just(RunEnded(status="canceled")),
        st.just(CancelRequested(reason="", actor="")),
        st.integers(1, 30),
    ),
    max_size=30,
)


def by_definition(records: list[Recorded]) -> list[int]:
    """The rule as the module states it, without regard to cost."""
    rewinds = [(r.event.to_seq, r.seq) for r in records if isinstance(r.event, Rewound)]
    kept: list[Recorded] = []
    for record in records:
        region = any(to < record.seq < at for to, at in rewinds)
        event = record.event
        commands = [command for r in kept if isinstance(r.event, TurnCommitted) for command in r.event.commands]
        if isinstance(event, TurnCommitted | RunEnded) and region:
            continue
        if isinstance(event, CancelRequested) and any(
            to < record.seq < r.seq < at and isinstance(r.event, RunEnded) and r.event.status == "canceled"
            for to, at in rewinds
            for r in records
        ):
            continue
        if isinstance(event, CommandSettled):
            turns_after_outcome = 0
            for r in kept:
                if isinstance(r.event, TurnCommitted) and event.command_id in [c.id for c in r.event.commands]:
                    turns_after_outcome = 1
                if isinstance(r.event, CommandSettled) and r.event.command_id == event.command_id:
                    turns_after_outcome = 0
            asked = any(command.kind == "cancel" and command.target == event.command_id for command in commands)
            if not turns_after_outcome or (region and event.outcome in ("failed", "canceled") and not asked):
                continue
        kept.append(record)
    return [record.seq for record in kept]


@given(EVENTS)
def test_equals_its_definition(items: list[Event | int]) -> None:
    events: list[Event] = [started()]
    for item in items:
        events.append(rewound(min(item, len(events))) if isinstance(item, int) else item)
    records = history(*events)
    assert [record.seq for record in effective(records)] == by_definition(records)
