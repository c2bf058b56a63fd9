"""The task engine's decision table: every message in every canonical state of a record, by the real core."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from perdure_core.task_engine.decisions import Ask, Decision, Discard, Emit, Hold, Save
from perdure_core.task_engine.state import TaskRecord
from perdure_schemas import topics
from perdure_schemas.common import RetryPolicy, TaskOptions
from perdure_schemas.messages import CommandReply, Message, RunTask, ScheduleTimer, TaskMessage, TaskResult
from tests.core.decision_table import Cell, Table
from tests.core.task_engine.samples import (
    OPEN,
    RETRY,
    SETTLED,
    SKIP,
    VALUE,
    WAIT,
    cancel,
    fired,
    heartbeat,
    outcome,
    saved,
    started,
    step,
    task,
)

EARLY, NOW, FAR = 1_500, 3_000, 100_000
"""Before any deadline of a task dispatched at 1,000; after a heartbeat or a retry of it; after its last deadline."""
OPTIONS = TaskOptions(
    retry=RetryPolicy(attempts_max=3, initial_delay_ms=1_000, jitter=0.0),
    queue_timeout_ms=20_000,
    attempt_timeout_ms=30_000,
    heartbeat_timeout_ms=5_000,
    total_timeout_ms=90_000,
)


def _dispatched(*, alone: bool = False) -> TaskRecord:
    return saved(None, task(alone=alone, options=OPTIONS), "d", waited=True).record


def _running(*, alone: bool = False) -> TaskRecord:
    return saved(_dispatched(alone=alone), started(), "s").record


def _waiting() -> TaskRecord:
    return saved(_running(), outcome("failed"), "f").record


def _again() -> TaskRecord:
    return saved(_waiting(), fired(2_000, 2, of=task(options=OPTIONS)), "due", at=2_000).record


def _retried() -> TaskRecord:
    return saved(saved(_dispatched(alone=True), cancel(), "c").record, RETRY, "r").record


STATES: dict[str, tuple[str, Callable[[], TaskRecord | None]]] = {
    "no record": ("Nothing is stored: unknown, done within a second, or just dispatched.", lambda: None),
    "canceled early": (
        "Its workflow canceled it before its dispatch came here.",
        lambda: saved(None, cancel(by_workflow=True), "c").record,
    ),
    "queued": ("It outlived its hold; attempt 1 has not announced itself.", _dispatched),
    "running": ("Attempt 1 announced itself.", _running),
    "waiting": ("Attempt 1 failed; attempt 2 waits for its time.", _waiting),
    "queued again": ("This engine dispatched attempt 2.", _again),
    "delegated": (
        "Attempt 1 handed the work on.",
        lambda: saved(_running(), outcome("completed", delegated=True), "g").record,
    ),
    "done": ("Completed; its run knows.", lambda: saved(_running(), outcome("completed"), "o").record),
    "canceled": ("Canceled while it ran; its run was told.", lambda: saved(_running(), cancel(), "c").record),
    "alone": ("Stand-alone; attempt 1 runs.", lambda: _running(alone=True)),
    "alone, done": ("Stand-alone, completed.", lambda: saved(_running(alone=True), outcome("completed"), "o").record),
    "alone, retried": ("Stand-alone, canceled, then retried by a person.", _retried),
}  # fmt: skip

GIVEN = task(options=OPTIONS)
MESSAGES: dict[str, tuple[str, Callable[[TaskRecord | None], tuple[TaskMessage, str]]]] = {
    "dispatch": ("`DispatchTask`: supervise it; attempt 1 is on its way.", lambda r: (_dispatch(r, 0), "n")),
    "dispatch, resumed": ("The same, after a rewind: the next generation.", lambda r: (_dispatch(r, 1), "n")),
    "repetition": ("The message of the record's last transition comes again.", lambda r: _repetition(r)),  # noqa: PLW0108
    "success": ("`AttemptOutcome` completed, of this attempt.", lambda r: (outcome("completed", _number(r)), "n")),
    "late success": ("The same, of an older generation.", lambda r: (outcome("completed", _number(r), -1), "n")),
    "failure": ("Failed; the retry policy has an attempt left.", lambda r: (_failed(r, _number(r)), "n")),
    "last failure": ("Failed for good.", lambda r: (_failed(r, _number(r), retryable=False), "n")),
    "stale failure": ("Of an attempt before the current one.", lambda r: (_failed(r, 0), "" if r is None else "n")),
    "delegated": (
        "The attempt handed the work on.",
        lambda r: (outcome("completed", _number(r), delegated=True, of=GIVEN), "n"),
    ),
    "started": ("`AttemptStarted`: a worker has the current attempt.", lambda r: (started(_number(r), of=GIVEN), "n")),
    "started, 4th": (
        "The same, after three deliveries whose worker died.",
        lambda r: (started(_number(r), deliveries=4, of=GIVEN), "n"),
    ),
    "heartbeat": ("`AttemptHeartbeat` of the current attempt.", lambda r: (heartbeat(_number(r)), "n")),
    "cancel": ("`CancelTask` by a person.", lambda r: (cancel(), "n")),
    "cancel, workflow": ("`CancelTask` by its workflow.", lambda r: (cancel(by_workflow=True), "n")),
    "retry": ("`RetryTask` by a person.", lambda r: (RETRY, "n")),
    "edited retry": ("`RetryTask` with other arguments.", lambda r: (msgspec.structs.replace(RETRY, args=VALUE), "n")),
    "skip": ("`CompleteTask` with a person's answer.", lambda r: (SKIP, "n")),
    "wait": ("`WaitForTask`: tell a client how it ends.", lambda r: (WAIT, "n")),
    "timer, early": ("`TaskTimerFired`; the deadline has moved since.", lambda r: (_timer(r, EARLY), "n")),
    "timer, due": ("`TaskTimerFired` at the record's next deadline.", lambda r: (_timer(r, FAR), "n")),
}  # fmt: skip


def _alone(record: TaskRecord | None) -> bool:
    return record is not None and record.task.workflow is None


def _dispatch(record: TaskRecord | None, generation: int) -> TaskMessage:
    return task(generation, alone=_alone(record), options=OPTIONS)


def _number(record: TaskRecord | None) -> int:
    return 1 if record is None else record.attempt


def _failed(record: TaskRecord | None, number: int, *, retryable: bool = True) -> TaskMessage:
    failed = outcome("failed", number, of=GIVEN)
    assert failed.failure is not None
    return msgspec.structs.replace(failed, failure=msgspec.structs.replace(failed.failure, retryable=retryable))


def _timer(record: TaskRecord | None, due_at: int) -> TaskMessage:
    return fired(due_at, _number(record), of=task(alone=_alone(record), options=OPTIONS))


def _repetition(record: TaskRecord | None) -> tuple[TaskMessage, str]:
    """What it says does not matter: its id is known."""
    return (task(), "") if record is None else (RETRY, record.cause)


SIGNS = {
    "S": "saves the record, then publishes",
    "?S": "asks the run's history, then saves",
    "hS": "held for a second, then saves",
    "h?S": "held for a second, asks the history, then saves",
    "∅": "discards the message (and answers, if somebody asked)",
    "?∅": "asks the run's history, then discards the message",
    "h∅": "held for a second, then discarded (and answered)",
    "=": "publishes again what the last transition published",
    "?=": "the same, once the history has no outcome",
    "a": "only answers",
    "·": "cannot occur",
}

INTRO = """What the task engine does with each message in each state of a task's record, as the code decides it.

In the common case none of this happens: a dispatch is held in memory, meets its success, and both are acknowledged.
What is *held* waits a second for that, or for its dispatch. Where the engine *asks*, the history of the task's run is
the authority: the last column says what happens if that has the outcome already (or the run has ended, or a rewind
undid the task). Nothing is published before the record is saved, but the timer of a new record; a message is
acknowledged after all it caused is published.

Signs below are of a task with three attempts and all four time-outs. Every save tells the read models."""


def cell(state: str, message: str) -> Cell:
    record = STATES[state][1]()
    body, id = MESSAGES[message][1](record)
    if not id:
        return "·", "cannot occur", "", ""
    at = {"timer, early": EARLY, "timer, due": FAR}.get(message, NOW)
    waited = asked = False
    decision = step(record, body, id, at=at, authority=None)
    if isinstance(decision, Hold):
        waited = True
        decision = step(record, body, id, at=at, waited=True, authority=None)
    against = ""
    if isinstance(decision, Ask):
        asked = True
        against = _phrase(step(record, body, id, at=at, waited=waited, authority=SETTLED))
        decision = step(record, body, id, at=at, waited=waited, authority=OPEN)
    sign = ("h" if waited else "") + ("?" if asked else "") + _sign(decision, record, id)
    return sign, _after(decision), _publishes(decision), against


def _sign(decision: Decision, record: TaskRecord | None, id: str) -> str:
    match decision:
        case Save():
            return "S"
        case Discard():
            return "∅"
        case Emit():
            return "=" if record is not None and id == record.cause else "a"
        case Hold() | Ask():
            raise AssertionError(decision)
        case _:
            assert_never(decision)


def _after(decision: Decision) -> str:
    if isinstance(decision, Save):
        record = decision.record
        return f"{record.status}, attempt {record.attempt}" if record.open else record.status
    return f"discarded: {decision.reason}" if isinstance(decision, Discard) else "unchanged"


def _publishes(decision: Decision) -> str:
    if not isinstance(decision, Save | Emit | Discard):
        return ""
    before = decision.before if isinstance(decision, Save) else ()
    named = [*(f"first {_name(topic, m)}" for topic, m in before), *(_name(topic, m) for topic, m in decision.effects)]
    return ", ".join(dict.fromkeys(name for name in named if name))


def _name(topic: str, message: Message) -> str:
    body = message.body
    kind = type(body).__name__
    match body:
        case RunTask():
            return f"{kind} {body.attempt}"
        case ScheduleTimer():
            return kind
        case CommandReply():
            return f"{kind} {body.status}"
        case TaskResult():
            return f"{kind} {body.outcome}"
        case _:
            return "" if topic == topics.TASK_EVENTS else kind


def _phrase(decision: Decision) -> str:
    return "; ".join(part for part in (_after(decision), _publishes(decision)) if part)


def task_table() -> Table:
    return Table(
        path="docs/reference/task-engine-table.md",
        title="Task engine: what each message does",
        intro=INTRO,
        signs=SIGNS,
        columns=("Record after", "Publishes", "If the history has its outcome"),
        states={name: meaning for name, (meaning, _) in STATES.items()},
        messages={name: meaning for name, (meaning, _) in MESSAGES.items()},
        cell=cell,
    )
