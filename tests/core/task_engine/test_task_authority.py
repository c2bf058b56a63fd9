"""The marks of a task say what the whole history would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_core.history import KEPT_OUTCOMES, effective
from perdure_core.task_engine.authority import EVERY_COMMAND, Mark, judge, marks
from perdure_core.workflow_engine.lineage import trace
from perdure_schemas.common import Command, Outcome, WaitsFor
from perdure_schemas.events import CommandSettled, EndStatus, Event, Recorded, Rewound, RunEnded, TurnCommitted

TASKS = ("a", "b")
OUTCOMES: list[Outcome] = ["completed", "failed", "canceled", "timed-out", "skipped"]
ENDS: list[EndStatus] = ["failed", "completed", "terminated"]


def turn(commands: list[Command], generation: int) -> TurnCommitted:
    return TurnCommitted(
        workflow_task_id="",
        base=0,
        nonce="",
        generation=generation,
        commands=commands,
        waits_for=WaitsFor(),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    """Of two tasks. A command is issued once in what is in force, as the engine sees to it."""
    both = turn([Command(id=id, position=id, kind="task", name="t") for id in TASKS], 0)
    history = [Recorded(seq=1, at=1, cause="1", event=both)]
    generation = 0
    for seq in range(2, draw(st.integers(2, 12)) + 1):
        commands = {id for r in effective(history) if isinstance(r.event, TurnCommitted) for id in _issued(r.event)}
        kind = draw(st.sampled_from(["issue", "settle", "settle", "settle", "cancel", "rewind", "rewind", "end"]))
        id = draw(st.sampled_from(TASKS))
        event: Event
        if kind == "issue" and id not in commands:
            event = turn([Command(id=id, position=id, kind="task", name="t")], generation)
        elif kind == "cancel":
            event = turn([Command(id=f"c{seq}", position="c", kind="cancel", target=id)], generation)
        elif kind == "rewind" and seq > 1:
            generation += 1
            skipped = [id] if draw(st.booleans()) and _last_success(history, id) == "skipped" else []
            to_seq = min([draw(st.integers(0, seq - 1)), *_before_outcomes(history, skipped)])
            event = Rewound(to_seq=to_seq, generation=generation, reason="", actor="", taken_back=skipped)
        elif kind == "end":
            event = RunEnded(status=draw(st.sampled_from(ENDS)))
        else:
            event = CommandSettled(command_id=id, outcome=draw(st.sampled_from(OUTCOMES)))
        history.append(Recorded(seq=seq, at=seq, cause=str(seq), event=event))
    return history


def _last_success(history: list[Recorded], id: str) -> str:
    events = (r.event for r in reversed(history))
    settled = (event for event in events if isinstance(event, CommandSettled) and event.command_id == id)
    return next((event.outcome for event in settled if event.outcome in KEPT_OUTCOMES), "")


def _before_outcomes(history: list[Recorded], ids: list[str]) -> list[int]:
    in_force = [(r.seq, r.event) for r in effective(history)]
    return [seq - 1 for seq, event in in_force if isinstance(event, CommandSettled) and event.command_id in ids]


def _issued(event: TurnCommitted) -> list[str]:
    return [command.id for command in event.commands if command.kind == "task"]


def by_whole_history(history: list[Recorded], task_id: str, generation: int) -> tuple[str, str | None]:
    issued, canceled, ended = False, False, False
    settled: str | None = None
    for recorded in effective(history):
        event = recorded.event
        if isinstance(event, TurnCommitted):
            issued = issued or task_id in _issued(event)
            canceled = canceled or any(c.kind == "cancel" and c.target == task_id for c in event.commands)
        elif isinstance(event, CommandSettled) and event.command_id == task_id:
            settled = event.outcome
        elif isinstance(event, RunEnded):
            ended = ended or event.status != "failed"
    if ended:
        return "ended", None
    if settled is not None:
        return "settled", settled
    if issued and canceled:
        return "settled", "canceled"
    lineage = trace(history)
    if task_id not in lineage.traces or lineage.generation(task_id) > generation:
        return "gone", None
    if issued:
        return "open", None
    orphan = lineage.orphans(set())[task_id]
    return ("gone" if orphan.failed or orphan.settled is not None else "open"), None


@settings(max_examples=500, deadline=None)
@given(histories(), st.sampled_from(TASKS), st.integers(0, 3))
def test_marks_say_what_the_whole_history_says(history: list[Recorded], task_id: str, generation: int) -> None:
    found = [mark for r in history for id, mark in marks(r) if id in {task_id, EVERY_COMMAND}]
    verdict = judge(task_id, found, generation)
    assert (verdict.state, verdict.outcome) == by_whole_history(history, task_id, generation)


def test_a_running_task_whose_turn_was_dropped_is_supervised_until_it_is_canceled() -> None:
    """The next turn may adopt it without dispatching it again: if its worker dies, somebody must know."""
    found = [Mark(seq=2, kind="issued"), Mark(seq=4, kind="rewound", to_seq=1, generation=1)]
    assert judge("a", found, 0).state == "open"
    failed = [found[0], Mark(seq=3, kind="settled", outcome="failed"), found[1]]
    assert judge("a", failed, 0).state == "gone", "adopted, it will be dispatched again"


def test_children_timers_and_inline_values_leave_no_mark() -> None:
    commands = [Command(id=kind, position="0", kind=kind) for kind in ("child", "timer", "inline", "signal")]
    fired = CommandSettled(command_id="timer", outcome="fired")
    for event in (turn(commands, 0), fired):
        assert not list(marks(Recorded(seq=1, at=1, cause="m", event=event)))
