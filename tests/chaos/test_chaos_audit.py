"""The auditor finds nothing in what is right, and says what is wrong with anything else."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from perdure_schemas.common import Command, WaitsFor
from perdure_schemas.events import CommandSettled, Event, Recorded, RunEnded, TurnCommitted
from tests.chaos.audit import Mark, Report, audit_effects, audit_runs, audit_timers, marks_of
from tests.chaos.facts import facts_of
from tests.chaos.load import Promise

TURN = TurnCommitted(
    workflow_task_id="w", base=0, nonce="n", generation=0, waits_for=WaitsFor(groups=[]),
    commands=[Command(id="t1", position="0", kind="task")],
)  # fmt: skip
SETTLED = CommandSettled(command_id="t1", outcome="completed")
END = RunEnded(status="completed")
RIGHT: list[Event] = [TURN, SETTLED, END]


def history(events: list[Event]) -> list[Recorded]:
    return [Recorded(seq=n, at=1_000 + n, cause=f"c{n}", event=event) for n, event in enumerate(events, 1)]


def promise(kind: str = "hello", expected: Any = 2, result: Any = 2, **more: Any) -> Promise:
    made = Promise("run", kind, expected, 1.0, cast("Any", None), result, 2.0, facts=facts_of(history(RIGHT)))
    for name, value in more.items():
        setattr(made, name, value)
    return made


def mark(task_id: str = "t1", at: int = 1_000, attempt: str = "a1") -> Mark:
    return Mark(task_id, attempt, "run", at, 77)


def seen(one: Promise, *marks: Mark) -> str:
    report = Report()
    audit_runs(report, [one])
    audit_effects(report, [one], marks)
    audit_timers(report, [one], marks)
    return "\n".join(report.violations)


@pytest.mark.parametrize("right", [
    promise(), promise("napping", 300, 301), promise("Collector", [0, 1], [0, 1]),
    promise("Collector", [0, 1, 2], [0, 0, 1], resent=Counter({0: 1})),
])  # fmt: skip
def test_nothing_is_found_where_nothing_is_wrong(right: Promise) -> None:
    marks = [mark(), mark(attempt="a1")]
    if right.kind == "napping":
        assert right.facts is not None
        right.facts.tasks.add("t2")
        marks += [mark("t2", at=1_300)]
    assert not seen(right, *marks)


@pytest.mark.parametrize(("wrong", "told"), [
    (promise(done_at=0.0), "never ended"),
    (promise(error="RunFailed: no"), "RunFailed"),
    (promise(result=3), "3, not 2"),
    (promise("napping", 300, 299), "slept for 299 ms of 300"),
    (promise("Collector", [0, 1], [1, 0]), "signals came as [1, 0]"),
    (promise("Collector", [0, 1], [0, 0]), "signals came as [0, 0]"),
    (promise("Collector", [0, 1, 2], [0, 2, 2], resent=Counter({2: 1})), "signals came as [0, 2, 2]"),
    (promise("Collector", [0, 1], [0]), "signals came as [0]"),
])  # fmt: skip
def test_a_wrong_end_is_told(wrong: Promise, told: str) -> None:
    report = Report()
    audit_runs(report, [wrong])
    assert len(report.violations) == 1
    assert told in report.violations[0]


@pytest.mark.parametrize(("events", "told"), [
    ([TURN, SETTLED], "it ended at [] of 2 events"),
    ([TURN, END, SETTLED], "it ended at [2] of 3 events"),
    ([TURN, SETTLED, END, END], "it ended at [3, 4] of 4 events"),
    ([TURN, SETTLED, SETTLED, END], "command t1 was settled 2 times"),
])  # fmt: skip
def test_a_history_that_contradicts_itself_is_told(events: list[Event], told: str) -> None:
    assert told in "\n".join(facts_of(history(events)).faults)


def test_a_history_with_a_gap_or_with_a_time_that_goes_back_is_told() -> None:
    first, second, third = history(RIGHT)
    assert facts_of([first, third]).faults[0] == "its events are not one chain"
    assert facts_of([first, Recorded(seq=2, at=1, cause="", event=second.event), third]).faults == [
        "its time went backwards"
    ]


@pytest.mark.parametrize(("forgotten", "many"), [(1, False), (2, True)])
def test_many_histories_that_nobody_could_read_are_told(forgotten: int, many: bool) -> None:
    report = Report()
    audit_runs(report, [promise(facts=None, forgotten=number < forgotten) for number in range(50)])
    assert bool(report.violations) is many


def test_a_task_that_nobody_asked_for_and_one_that_never_ran_are_told() -> None:
    assert seen(promise(), mark(), mark("t9")) == "run: task t9 ran, and no turn asked for it"
    assert seen(promise()) == "run: task t1 has an outcome, and never ran"


def test_a_timer_that_is_early_by_the_clock_of_others_is_told_though_its_run_says_otherwise() -> None:
    facts = facts_of(history(RIGHT))
    facts.tasks.add("t2")
    nap = promise("napping", 300, 300, facts=facts)
    assert seen(nap, mark(at=1_000), mark("t2", at=1_299)) == "run: its timer fired 1 ms early"
    assert not seen(nap, mark(at=1_000), mark("t2", at=1_300), mark("t1", at=1_200, attempt="a1"))


def test_marks_are_read_as_they_are_left() -> None:
    """The file may be read while its last line is being written."""
    assert marks_of("hold t1 a1 run 1000 77\nhold t2 a2 r") == [mark()]
