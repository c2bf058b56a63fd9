"""The workflow engine's decision table: every message in every canonical state, by the real core."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from perdure_core.workflow_engine import decisions as d
from perdure_schemas import ids
from perdure_schemas.common import (
    NULL,
    Address,
    Command,
    Completion,
    ContinueAsNew,
    Failure,
    MoveCheck,
    Outcome,
    Query,
    RunOptions,
)
from perdure_schemas.events import CommandSettled, Event, RunEnded, Stuck
from perdure_schemas.messages import (
    Body,
    ChildOutcome,
    CommandReply,
    ControlAction,
    ControlRun,
    GetHistory,
    Message,
    MoveChecked,
    MoveRun,
    QueryResult,
    QueryRun,
    ResumeRun,
    RunResult,
    RunWorkflowTask,
    ScheduleTimer,
    SendSignal,
    StartReply,
    TaskOutcome,
    TimerFired,
    TimerKind,
    UpdateResult,
    UpdateRun,
    WaitForResult,
    WorkflowMessage,
)
from tests.core.decision_table import Cell, Table
from tests.core.workflow_case import FAILURE, WORKFLOW_ID, Case, Reaction, completed, failed, start

INBOX = "inbox.client"

# --- states --------------------------------------------------------------------------------------


def waiting() -> Case:
    """After its first turn: a task, a child, a timer and a channel."""
    case = Case()
    case.start(options=RunOptions(run_timeout_ms=3_600_000))
    case.turn(*_commands(case))
    return case


def _commands(case: Case) -> list[Command]:
    return [
        case.command("task"),
        case.command("child", "child", child_id="order-1-child"),
        case.command("timer", "timer", args=None, due_at=case.now + 60_000),
    ]


def _unborn() -> Case:
    case = Case()
    case.send(SendSignal(workflow_id=WORKFLOW_ID, channel="c", payload=NULL, sender="a", number=1))
    return case


def _new() -> Case:
    case = Case()
    case.start(options=RunOptions(run_timeout_ms=3_600_000))
    return case


def _turn_out() -> Case:
    case = waiting()
    case.send(_outcome(case, "task", "completed"))
    return case


def _cancel_requested() -> Case:
    case = waiting()
    case.send(_control("cancel"))
    return case


def _paused() -> Case:
    case = waiting()
    case.send(_control("pause"))
    return case


def _stuck() -> Case:
    case = _turn_out()
    case.fail_turn()
    return case


def _ended(status: str) -> Case:
    case = waiting()
    if status == "terminated":
        case.send(_control("terminate"))
    elif status == "timed-out":
        case.send(_timer(case, "run-timeout"))
    else:
        case.send(_outcome(case, "task", "failed" if status == "failed" else "completed"))
        if status == "canceled":
            case.send(_control("cancel"))
        case.turn(completion=_completion(case, status))
    return case


def _completion(case: Case, status: str) -> Completion:
    match status:
        case "completed":
            return Completion(status="completed", result=NULL)
        case "failed":
            return Completion(status="failed", failure=FAILURE, command_id=_id(case, "task"))
        case "canceled":
            return Completion(status="canceled", failure=FAILURE)
        case _:
            return Completion(status="continued-as-new", next_run=ContinueAsNew(name="order", args=NULL))


def _resumed() -> Case:
    case = _ended("failed")
    case.send(ResumeRun(workflow_id=WORKFLOW_ID))
    return case


STATES: dict[str, tuple[str, Callable[[], Case]]] = {
    "no run": ("The workflow id has no row.", Case),
    "purged": ("The run existed; its retention is over and only its tombstone is left.", lambda: Case(purged=True)),
    "unborn": ("A signal came before its start.", _unborn),
    "new": ("Started; the first turn is out.", _new),
    "waiting": ("Waits for a task, a child, a timer and signals; no turn is out.", waiting),
    "turn out": ("The task has ended and the turn that sees it is at a worker.", _turn_out),
    "canceling": ("A cancel is recorded and the turn that sees it is at a worker.", _cancel_requested),
    "paused": ("Waiting, and paused by a person.", _paused),
    "stuck": ("The last turn could not be run; it is tried again after a back-off.", _stuck),
    "resumed": ("Failed, then resumed: its failed task runs again.", _resumed),
    "failed": ("Ended by a failure, which a resume can undo.", lambda: _ended("failed")),
    "completed": ("Ended with a result. Its child and timer were still open.", lambda: _ended("completed")),
    "canceled": ("Ended because it was asked to.", lambda: _ended("canceled")),
    "terminated": ("Ended by force, without its code seeing it.", lambda: _ended("terminated")),
    "timed out": ("Ended by its run time-out.", lambda: _ended("timed-out")),
    "continued": ("Ended by continue-as-new; the next run's start is on its way.", lambda: _ended("continued")),
}

# --- messages ------------------------------------------------------------------------------------


def _id(case: Case, position: str) -> str:
    """The id of the command `waiting` issued at `position`."""
    return ids.command_id("n", WORKFLOW_ID, "r1", 0, position)


def _outcome(
    case: Case, position: str, outcome: Outcome, *, generation: int | None = None, run_id: str = "r1"
) -> TaskOutcome:
    completed = outcome == "completed"
    return TaskOutcome(
        workflow_id=WORKFLOW_ID,
        run_id=run_id,
        command_id=_id(case, position),
        generation=case.state.generation if generation is None else generation,
        attempt=1,
        outcome=outcome,
        result=NULL if completed else None,
        failure=None if completed else FAILURE,
    )


def _child(case: Case) -> ChildOutcome:
    return ChildOutcome(
        workflow_id=WORKFLOW_ID,
        run_id="r1",
        command_id=_id(case, "child"),
        generation=0,
        outcome="failed",
        failure=FAILURE,
    )


def _timer(case: Case, kind: TimerKind) -> TimerFired:
    return TimerFired(
        workflow_id=WORKFLOW_ID,
        run_id="r1",
        kind=kind,
        command_id=_id(case, "timer") if kind == "command" else "",
        generation=case.state.generation,
        attempt=2 if kind == "turn" else 0,
        due_at=case.now + 8 * 24 * 3_600_000 if kind == "retention" else case.now,
    )


def _control(action: ControlAction) -> ControlRun:
    return ControlRun(workflow_id=WORKFLOW_ID, action=action, actor="ada", reply_topic=INBOX)


def _checked(case: Case, *, seq: int | None = None, failure: Failure | None = None) -> MoveChecked:
    known = case.state.seq if seq is None else seq
    check = MoveCheck(question="q", asked_at=case.now, seq=known, build="b2", reply_topic=INBOX)
    return MoveChecked(workflow_id=WORKFLOW_ID, run_id="r1", check=check, failure=failure)


def _signal(number: int, after: int) -> SendSignal:
    return SendSignal(
        workflow_id=WORKFLOW_ID,
        channel="c",
        payload=NULL,
        sender="b",
        number=number,
        after_number=after,
        reply_topic=INBOX,
    )


def _asked(case: Case, *, base: int | None = None, hash: str = "") -> RunWorkflowTask:
    """The turn a worker was asked for, or, before the run is known, one of some other engine's run."""
    known = case if case.state.started is not None else _new()
    asked = known.asked()
    if base is None:
        return asked
    return replace(
        asked,
        committed=min(base, asked.committed),
        base=base,
        base_hash=hash or known.state.hashes[base],
        hashes=["?"] * max(0, base - asked.committed),
    )


def _another(how: str, **policy: Any) -> tuple[str, Callable[[Case], WorkflowMessage]]:
    return f"`StartWorkflow`: another run, {how}.", lambda _: start(run_id="r9", **policy)


MESSAGES: dict[str, tuple[str, Callable[[Case], WorkflowMessage]]] = {
    "start": _another("conflict policy `fail`"),
    "start, use existing": _another("conflict policy `use-existing`", conflict_policy="use-existing"),
    "start, terminate existing": _another("conflict policy `terminate-existing`", conflict_policy="terminate-existing"),
    "start, reuse after failure": _another("reuse policy `after-failure`", reuse_policy="after-failure"),
    "start, reuse never": _another("reuse policy `never`", reuse_policy="never"),
    "start, same run": (
        "`StartWorkflow` of the very run that is known, in another message: a client's repetition.",
        lambda case: start(run_id="r1"),
    ),
    "turn": (
        "`WorkflowTaskCompleted` on all events known: issues one task and waits for it.",
        lambda case: completed(_asked(case), [case.command("more")]),
    ),
    "last turn": (
        "`WorkflowTaskCompleted` on all events known: the workflow returned.",
        lambda case: completed(_asked(case), completion=Completion(status="completed", result=NULL)),
    ),
    "turn, stale": (
        "`WorkflowTaskCompleted` on the history as of the start alone: a late repetition of the first turn.",
        lambda case: completed(_asked(case, base=1)),
    ),
    "turn, diverged": (
        "`WorkflowTaskCompleted` on another event 1 than the one recorded.",
        lambda case: completed(_asked(case, base=1, hash="?")),
    ),
    "turn, ahead": (
        "`WorkflowTaskCompleted` on an event this engine does not know.",
        lambda case: completed(_asked(case, base=case.state.seq + 1, hash="?")),
    ),
    "turn failed": ("`WorkflowTaskFailed` on all events known.", lambda case: failed(_asked(case))),
    "turn failed again": (
        "`WorkflowTaskFailed`, the same failure at its third attempt.",
        lambda case: failed(_asked(case), attempt=3),
    ),
    "task completed": ("`TaskOutcome`.", lambda case: _outcome(case, "task", "completed")),
    "task failed": ("`TaskOutcome`.", lambda case: _outcome(case, "task", "failed")),
    "task failed, older": (
        "`TaskOutcome`: a failure of an attempt made before the last rewind.",
        lambda case: _outcome(case, "task", "failed", generation=case.state.generation - 1),
    ),
    "outcome, unknown": (
        "`TaskOutcome` of a command that is in no turn in force.",
        lambda case: _outcome(case, "elsewhere", "completed"),
    ),
    "child failed": ("`ChildOutcome`.", _child),
    "timer": ("`TimerFired` of workflow code.", lambda case: _timer(case, "command")),
    "run time-out": ("`TimerFired` of the run's time-out.", lambda case: _timer(case, "run-timeout")),
    "turn look": (
        "`TimerFired`: look whether a turn is owed (a stuck turn's back-off, or the slow sweep).",
        lambda case: _timer(case, "turn"),
    ),
    "retention": (
        "`TimerFired`: the time to keep an ended run is over. A failed run is closed first.",
        lambda case: _timer(case, "retention"),
    ),
    "signal": ("`SendSignal`, a sender's first.", lambda case: _signal(1, 0)),
    "signal, after another": ("`SendSignal` whose sender had one confirmed before.", lambda case: _signal(2, 1)),
    "update": (
        "`UpdateRun`.",
        lambda case: UpdateRun(workflow_id=WORKFLOW_ID, update_id="u", name="add", args=NULL, reply_topic=INBOX),
    ),
    "query": (
        "`QueryRun`.",
        lambda case: QueryRun(
            workflow_id=WORKFLOW_ID, query=Query(query_id="q", name="total", args=NULL, reply_to=Address(INBOX, ""))
        ),
    ),
    "cancel": ("`ControlRun`.", lambda case: _control("cancel")),
    "terminate": ("`ControlRun`.", lambda case: _control("terminate")),
    "pause": ("`ControlRun`.", lambda case: _control("pause")),
    "unpause": ("`ControlRun`.", lambda case: _control("unpause")),
    "resume": ("`ResumeRun` without a position.", lambda case: ResumeRun(workflow_id=WORKFLOW_ID, reply_topic=INBOX)),
    "reset": (
        "`ResumeRun` to just before the command at a position, with `anyway`: a child came after it.",
        lambda case: ResumeRun(workflow_id=WORKFLOW_ID, position="task", anyway=True, reply_topic=INBOX),
    ),
    "move": ("`MoveRun` to build `b2`.", lambda case: MoveRun(workflow_id=WORKFLOW_ID, build="b2", reply_topic=INBOX)),
    "move, replayed": (
        "`MoveChecked`: a worker of build `b2` has replayed all there is.",
        _checked,
    ),
    "move, a turn later": (
        "`MoveChecked` of the history as of the start.",
        lambda case: _checked(case, seq=1),
    ),
    "move, not replayed": (
        "`MoveChecked`: the code of build `b2` does not replay it.",
        lambda case: _checked(case, failure=FAILURE),
    ),
    "wait for result": ("`WaitForResult`.", lambda case: WaitForResult(workflow_id=WORKFLOW_ID, reply_topic=INBOX)),
    "wait for another run": (
        "`WaitForResult` for a run that is not the current one.",
        lambda case: WaitForResult(workflow_id=WORKFLOW_ID, run_id="r0", reply_topic=INBOX),
    ),
    "get history": (
        "`GetHistory`.",
        lambda case: GetHistory(workflow_id=WORKFLOW_ID, run_id="r1", after_seq=0, up_to=0, reply_topic=INBOX),
    ),
}

AGAIN = {
    "the same again": (
        "Any message whose events are recorded, delivered once more (shown: the run's last one). "
        "It publishes what its commit published, save what has been settled since."
    )
}

# --- cells ---------------------------------------------------------------------------------------

SIGNS = {
    "**R**": "records events, commits at once",
    "r": "records events; they may wait up to 1 s for the turn they lead to",
    "∅": "discards the message (and answers, if it asks for an answer)",
    "a": "only answers",
    "↺": "hands the message back: something must come first",
    "⟳": "reloads the run, then hands the message back",
    "t": "has a worker run a turn, answer a query on the last one, or replay the run",
    "×": "drops the turn and has another one run: it had not seen everything",
    "w": "remembers who asked, and answers at the end",
    "p": "purges the run",
    "=": "publishes again what its commit published",
    "·": "cannot occur",
}


def cell(state: str, name: str) -> Cell:
    case = STATES[state][1]()
    if name in AGAIN:
        return _again(case)
    reaction = copy.deepcopy(case).send(MESSAGES[name][1](case))
    return _described(reaction)


def _again(case: Case) -> Cell:
    if case.state.seq == 0:
        return "·", "cannot occur", "", ""
    last = case.history[-1]
    anything = GetHistory(workflow_id=WORKFLOW_ID, run_id="r1", after_seq=0, up_to=0, reply_topic=INBOX)
    return _described(case.send(anything, id=last.cause))


def _described(reaction: Reaction) -> Cell:
    published = {(topic, m.id): (topic, m) for topic, m in reaction.published}.values()  # a repetition is the same
    answers = [m for _, m in published if isinstance(m.body, _ANSWERS)]
    others = [(topic, m) for topic, m in published if not isinstance(m.body, _ANSWERS)]
    sign, decided = _decided(reaction)
    return sign, decided, _counted([_published(topic, m) for topic, m in others]), _counted(map(_answer, answers))


_DECIDED: dict[type[d.Decision], tuple[str, str]] = {
    d.Discard: ("∅", "discards ({decision.reason})"),
    d.AlreadyRecorded: ("=", "has it recorded"),
    d.Later: ("↺", "hands back: {decision.reason}"),
    d.Ahead: ("⟳", "reloads; then hands back"),
    d.RunTurn: ("t", "runs the turn again (attempt {decision.attempt})"),
    d.AskWorker: ("t", "asks a worker"),
    d.CheckMove: ("t", "asks a worker of {decision.check.build} to replay it"),
    d.Refuse: ("×", "drops it; the turn is run again"),
    d.FindEnd: ("a", "looks into the history of {decision.run_id}"),
    d.AwaitEnd: ("w", "answers when the run ends"),
    d.Purge: ("p", "purges {decision.run_id}"),
    d.Serve: ("a", "answers"),
    d.SendHistory: ("a", "sends a page of history"),
}


def _decided(reaction: Reaction) -> tuple[str, str]:
    if reaction.recorded:
        first_rewinds = isinstance(reaction.decision, d.Rewind)
        now = first_rewinds or (isinstance(reaction.decision, d.Record) and reaction.decision.now)
        return "**R**" if now else "r", "records " + _counted(_event(event) for event in reaction.events)
    sign, phrase = _DECIDED[type(reaction.decision)]
    return sign, phrase.format(decision=reaction.decision)


def _event(event: Event) -> str:
    match event:
        case RunEnded(status=status, final=final):
            return f"RunEnded {status}" + " for good" * final
        case CommandSettled(outcome=outcome):
            return f"CommandSettled {outcome}"
        case Stuck(kind=kind):
            return f"Stuck ({kind})"
        case _:
            return type(event).__name__


_ANSWERS = (StartReply, CommandReply, QueryResult, UpdateResult, RunResult)


def _answer(message: Message) -> str:
    match message.body:
        case RunResult(status=status):
            return f"result: {status}"
        case StartReply() | CommandReply() | QueryResult() | UpdateResult() as body:
            detail = getattr(body, "detail", "")
            return f"{body.status}: {detail}" if detail else str(body.status)
        case body:
            raise AssertionError(body)


def _published(topic: str, message: Message) -> str:
    body: Body = message.body
    name = type(body).__name__
    match body:
        case ScheduleTimer(fires=TimerFired(kind=kind)):
            return f"{name} ({kind})"
        case ControlRun(action=action):
            return f"{name} {action} (child)"
        case ResumeRun():
            return f"{name} (child)"
        case ChildOutcome(outcome=outcome):
            return f"{name} {outcome} (parent)"
        case _:
            return name


def _counted(phrases: Iterable[str]) -> str:
    counts = Counter(phrases)
    return ", ".join(phrase if count == 1 else f"{count} {phrase}" for phrase, count in counts.items())


INTRO = """\
What the workflow engine does with each message in each state of a workflow id, as the code decides it.

Whatever the state, a message is judged in this order: recorded already? then publish what it caused once more;
for another run, or too late? then discard it; else apply it. A discard, a query's answer and a repetition rest on
a view that was loaded while the message was handled. Nothing is published before it is committed, and a message is
acknowledged only after all it caused is published. `RunWorkflowTask` asks a worker for the next turn: it follows
from the state (unfed events that satisfy what the run waits for), not from one message.

In the states below the workflow has issued a task, a child and a timer in its first turn and waits for any of them."""


def workflow_table() -> Table:
    return Table(
        path="docs/reference/workflow-engine-table.md",
        title="Workflow engine: what each message does",
        intro=INTRO,
        signs=SIGNS,
        columns=["The engine", "It publishes", "It answers"],
        states={name: meaning for name, (meaning, _) in STATES.items()},
        messages={**{name: meaning for name, (meaning, _) in MESSAGES.items()}, **AGAIN},
        cell=cell,
    )
