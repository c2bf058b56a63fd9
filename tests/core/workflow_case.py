"""One workflow id under test: the real core behind the smallest possible driver, in memory, commits never lost.

case = Case()
case.start()
reaction = case.send(SendSignal(...))        # decide, evolve, effects, as the engine does them
case.turn(task("charge"), waits="charge")    # what a worker would answer to the turn it was asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.decide import decide
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import found_end, reply
from perdure_core.workflow_engine.requests import replay_check, workflow_task
from perdure_core.workflow_engine.rewind import decide_rewind, resume_parent
from perdure_core.workflow_engine.start import termination_cause
from perdure_core.workflow_engine.state import RunState, evolve, fold
from perdure_schemas import ids
from perdure_schemas.common import (
    NULL,
    Command,
    Completion,
    ContinueAsNew,
    Failure,
    Outcome,
    Parent,
    Payload,
    RunOptions,
    WaitGroup,
    WaitsFor,
)
from perdure_schemas.events import Event, Recorded
from perdure_schemas.messages import (
    ChildOutcome,
    ControlAction,
    ControlRun,
    Message,
    ResumeRun,
    RunWorkflowTask,
    SendSignal,
    StartWorkflow,
    TaskOutcome,
    TimerFired,
    TimerKind,
    WorkflowMessage,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)

NAMESPACE = "n"
WORKFLOW_ID = "order-1"
NOW = 1_700_000_000_000
INBOX = "inbox.client"
FAILURE = Failure(name="ValueError", message="no")

B = TypeVar("B")


@dataclass(kw_only=True)
class Reaction:
    """What one message did."""

    decision: d.Decision
    recorded: list[Recorded] = field(default_factory=list)
    published: list[d.Published] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [recorded.event for recorded in self.recorded]

    def sent(self, kind: type[B]) -> list[B]:
        """The published bodies of that kind."""
        return [message.body for _, message in self.published if isinstance(message.body, kind)]

    @property
    def keys(self) -> set[tuple[str, str]]:
        """(type, id) of each published message."""
        return {(type(message.body).__name__, message.id) for _, message in self.published}


class Replica:
    """A workflow id, its current run and its committed history. `hold=True` leaves events uncommitted till `flush`."""

    def __init__(self, *, purged: bool = False) -> None:
        self.state = RunState(NAMESPACE, WORKFLOW_ID, 1)
        self.history: list[Recorded] = []
        self.committed = 0
        self.past: list[tuple[frozenset[str], list[Recorded]]] = []
        """Causes and histories of earlier runs of the workflow id."""
        self.purged_runs: set[str] = {"r1", "r9"} if purged else set()
        self.now = NOW
        self.build: str | None = None
        self.defaults = d.RunDefaults()
        self._count = 0

    # -- messages ----------------------------------------------------------------------------------

    def message(self, body: WorkflowMessage, *, id: str = "", at: int | None = None) -> Message:
        self._count += 1
        self.now += 1_000
        return Message(
            id=id or f"m{self._count}",
            namespace=NAMESPACE,
            key=WORKFLOW_ID,
            at=self.now if at is None else at,
            body=body,
        )

    def context(self, body: WorkflowMessage) -> d.Context:
        kinds = SendSignal | ControlRun | WorkflowTaskCompleted | WorkflowTaskFailed
        awaits = isinstance(body, kinds) and self.state.started is None
        purged = (awaits or isinstance(body, StartWorkflow)) and body.run_id in self.purged_runs
        earlier = isinstance(body, StartWorkflow) and self._earlier(body.run_id).started is not None
        return d.Context(
            now=self.now, committed=self.committed, build=self.build, defaults=self.defaults, purged=purged,
            earlier=earlier,
        )  # fmt: skip

    def decide(self, message: Message) -> d.Decision:
        body = message.body
        assert isinstance(body, WorkflowMessage)
        return decide(self.state, message, body, self.context(body))

    def deliver(  # noqa: C901 - one branch per decision that publishes
        self, message: Message, *, hold: bool = False
    ) -> Reaction:
        """Decide the message and carry the decision out; a turn that is owed then is asked for.

        As in the driver, only what is recorded or held may be decided upon uncommitted events.
        """
        decision = self.decide(message)
        early: list[d.Published] = []
        if self.committed < self.state.seq and not isinstance(decision, d.Record | d.Attached | d.Later):
            early = [*self.flush(), *self.owed()]
            decision = self.decide(message)
        reaction = Reaction(decision=decision, published=early)
        match decision:
            case d.Record():
                self._record(decision, message, reaction, hold=hold)
            case d.Rewind(request=request):
                self._rewind(message, request, reaction)
            case d.AlreadyRecorded():
                causes = message.id, termination_cause(message)
                again = [published for cause in causes for published in self._reemitted(cause)]
                reaction.published += [*again, *reply(self.state, message, "ok")]
            case d.Discard(publish=publish) | d.Serve(publish=publish):
                reaction.published += publish
            case d.RunTurn(attempt=attempt):
                reaction.published.append(workflow_task(self.state, self.committed, attempt=attempt))
            case d.AskWorker(query=query):
                reaction.published.append(workflow_task(self.state, self.committed, queries=[query]))
            case d.CheckMove(check=check):
                reaction.published.append(replay_check(self.state, check))
            case d.Purge(run_id=run_id):
                reaction.published += self._reemitted(termination_cause(message))
                self._purge(run_id)
            case d.FindEnd(run_id=run_id):
                recorded = any(message.id in causes for causes, _ in self.past)
                again = self._reemitted(message.id) if recorded else found_end(message, self._earlier(run_id))
                reaction.published += again
            case _:
                pass
        return reaction

    def _record(self, record: d.Record, message: Message, reaction: Reaction, *, hold: bool) -> None:
        if any(message.id in causes for causes, _ in self.past):
            reaction.decision, reaction.published = d.AlreadyRecorded(0), self._reemitted(message.id)
            return
        if record.begins_run:
            reaction.published += self._reemitted(termination_cause(message))
            if self.state.started is not None:
                self.past.append((frozenset(self.state.causes), self.history))
            self.state, self.history, self.committed = RunState(NAMESPACE, WORKFLOW_ID, len(self.past) + 1), [], 0
        own = [(record.cause or message.id, event) for event in record.events]
        for cause, event in [*own, *((carried.cause, carried.event) for carried in record.carried)]:
            at = max(self.state.at, message.at)
            entry = Recorded(seq=self.state.seq + 1, at=at, cause=cause, event=event)
            evolve(self.state, entry)
            self.history.append(entry)
            reaction.recorded.append(entry)
        if hold and not record.now:
            return
        reaction.published += self.flush()
        reaction.published += [] if record.again else reply(self.state, message, "ok")
        if record.again:
            following = self.deliver(message)
            reaction.recorded += following.recorded
            reaction.published += following.published
        else:
            reaction.published += self.owed()

    def _reemitted(self, cause: str) -> list[d.Published]:
        """What the commit of that message publishes again, also when an earlier run of the workflow id recorded it."""
        state, history = self.state, self.history
        for ordinal, (causes, past) in enumerate(self.past, 1):
            if cause in causes:
                state, history = fold(NAMESPACE, WORKFLOW_ID, ordinal, past), past
        caused = [recorded for recorded in history if recorded.cause == cause]
        return effects(state, caused) if state.started is not None else []

    def _purge(self, run_id: str) -> None:
        self.purged_runs.add(run_id)
        if run_id == self.state.run_id:
            self.state, self.history, self.committed = RunState(NAMESPACE, WORKFLOW_ID, len(self.past) + 1), [], 0

    def _earlier(self, run_id: str) -> RunState:
        for ordinal, (_, past) in enumerate(self.past, 1):
            run = fold(NAMESPACE, WORKFLOW_ID, ordinal, past)
            if run.run_id == run_id and run_id not in self.purged_runs:
                return run
        return RunState(NAMESPACE, WORKFLOW_ID, 0)

    def flush(self) -> list[d.Published]:
        """Commit what is held: its effects."""
        events = self.history[self.committed :]
        self.committed = self.state.seq
        return effects(self.state, events) if self.state.started is not None else []

    def owed(self) -> list[d.Published]:
        return [workflow_task(self.state, self.committed)] if self.state.needs_turn() else []

    def _rewind(self, message: Message, body: ResumeRun, reaction: Reaction) -> None:
        ended = self.state.ended
        decision = decide_rewind(self.state, message, body, self.history)
        if isinstance(decision, d.Discard):
            reaction.decision = decision
            reaction.published += decision.publish
            return
        assert isinstance(decision, d.Record)
        for event in decision.events:
            at = max(self.state.at, message.at)
            entry = Recorded(seq=len(self.history) + 1, at=at, cause=message.id, event=event)
            self.history.append(entry)
            reaction.recorded.append(entry)
        self.state = fold(NAMESPACE, WORKFLOW_ID, self.state.ordinal, self.history)
        reaction.published += [*self.flush(), *resume_parent(self.state, message, body, ended)]
        reaction.published += [*reply(self.state, message, "ok"), *self.owed()]


class Case(Replica):
    """With what usually happens to a run."""

    def send(self, body: WorkflowMessage, *, id: str = "", at: int | None = None, hold: bool = False) -> Reaction:
        return self.deliver(self.message(body, id=id, at=at), hold=hold)

    def start(self, *, run_id: str = "r1", parent: Parent | None = None, options: RunOptions | None = None) -> Reaction:
        return self.send(start(run_id=run_id, parent=parent, options=options))

    def asked(self) -> RunWorkflowTask:
        """The turn a worker would be asked for now."""
        body = workflow_task(self.state, self.committed)[1].body
        assert isinstance(body, RunWorkflowTask)
        return body

    def turn(
        self,
        *commands: Command,
        waits: WaitsFor | None = None,
        completion: Completion | None = None,
        asked: RunWorkflowTask | None = None,
    ) -> Reaction:
        """A worker answers the turn it was asked for. By default the run then waits for any of `commands`."""
        return self.send(completed(asked or self.asked(), commands, waits=waits, completion=completion))

    def fail_turn(self, failure: Failure = FAILURE, *, attempt: int = 1) -> Reaction:
        return self.send(failed(self.asked(), failure, attempt=attempt))

    def known(self, position: str) -> Command:
        """The command in force at `position`."""
        return next(known.command for known in self.state.commands.values() if known.command.position == position)

    def command(self, position: str, kind: str = "task", **fields: Any) -> Command:
        """A command at `position`, under its derived id."""
        own = ids.command_id(NAMESPACE, WORKFLOW_ID, self.state.run_id, self.state.generation, position)
        return Command(**{"id": own, "position": position, "kind": kind, "name": position, "args": NULL, **fields})


def start(
    *,
    run_id: str = "r1",
    parent: Parent | None = None,
    options: RunOptions | None = None,
    **more: Any,
) -> StartWorkflow:
    return StartWorkflow(
        workflow_id=WORKFLOW_ID,
        run_id=run_id,
        name="order",
        args=NULL,
        parent=parent,
        options=options or RunOptions(),
        reply_topic=INBOX,
        **more,
    )


def completed(
    asked: RunWorkflowTask,
    commands: Sequence[Command] = (),
    *,
    waits: WaitsFor | None = None,
    completion: Completion | None = None,
) -> WorkflowTaskCompleted:
    supervised = [command.id for command in commands if command.kind in ("task", "child", "timer")]
    return WorkflowTaskCompleted(
        workflow_id=WORKFLOW_ID,
        run_id=asked.run_id,
        workflow_task_id=asked.workflow_task_id,
        generation=asked.generation,
        committed=asked.committed,
        base=asked.base,
        base_hash=asked.base_hash,
        hashes=asked.hashes,
        commands=list(commands),
        waits_for=waits if waits is not None else _any_of(supervised),
        completion=completion,
    )


def _any_of(supervised: list[str]) -> WaitsFor:
    return WaitsFor(groups=[WaitGroup(op="any", ids=supervised)] if supervised else [])


def failed(asked: RunWorkflowTask, failure: Failure = FAILURE, *, attempt: int = 1) -> WorkflowTaskFailed:
    return WorkflowTaskFailed(
        workflow_id=WORKFLOW_ID,
        run_id=asked.run_id,
        workflow_task_id=asked.workflow_task_id,
        base=asked.base,
        base_hash=asked.base_hash,
        generation=asked.generation,
        attempt=attempt,
        kind="bug",
        failure=failure,
    )


def task_outcome(
    case: Case,
    command: Command,
    outcome: Outcome = "completed",
    *,
    generation: int | None = None,
    value: bytes = b"1",
) -> TaskOutcome:
    done = outcome == "completed"
    return TaskOutcome(
        workflow_id=WORKFLOW_ID,
        run_id=case.state.run_id,
        command_id=command.id,
        generation=case.state.generation if generation is None else generation,
        attempt=1,
        outcome=outcome,
        result=Payload("json", value) if done else None,
        failure=None if done else FAILURE,
    )


def child_outcome(case: Case, command: Command, outcome: Outcome = "completed") -> ChildOutcome:
    done = outcome == "completed"
    return ChildOutcome(
        workflow_id=WORKFLOW_ID,
        run_id=case.state.run_id,
        command_id=command.id,
        generation=0,
        outcome=outcome,
        result=NULL if done else None,
        failure=None if done else FAILURE,
    )


def timer_fired(case: Case, kind: TimerKind, command: Command | None = None, *, due_at: int = 0) -> TimerFired:
    return TimerFired(
        workflow_id=WORKFLOW_ID,
        run_id=case.state.run_id,
        kind=kind,
        command_id="" if command is None else command.id,
        generation=case.state.generation,
        due_at=due_at,
    )


def signal(number: int, *, sender: str = "s", after: int = 0, run_id: str = "") -> SendSignal:
    return SendSignal(
        workflow_id=WORKFLOW_ID,
        channel="c",
        payload=Payload("json", str(number).encode()),
        sender=sender,
        number=number,
        after_number=after,
        run_id=run_id,
        reply_topic=INBOX,
    )


def control(action: ControlAction, *, run_id: str = "", actor: str = "") -> ControlRun:
    return ControlRun(workflow_id=WORKFLOW_ID, action=action, run_id=run_id, actor=actor, reply_topic=INBOX)


def resume(**fields: Any) -> ResumeRun:
    return ResumeRun(workflow_id=WORKFLOW_ID, reply_topic=INBOX, **fields)


def wait_any(*commands: Command) -> WaitsFor:
    return WaitsFor(groups=[WaitGroup(op="any", ids=[command.id for command in commands])])


COMPLETED = Completion(status="completed", result=NULL)


def failing(command: Command | None = None) -> Completion:
    return Completion(status="failed", failure=FAILURE, command_id="" if command is None else command.id)


def continuing(*unreceived: int) -> Completion:
    following = ContinueAsNew(name="order", args=NULL, unreceived=list(unreceived))
    return Completion(status="continued-as-new", next_run=following)


def failed_after(*dropped: Command, options: RunOptions | None = None) -> Case:
    """Task `a` failed; the turn that saw it issued `dropped` and ended the run."""
    case = Case()
    case.start(options=options)
    a = case.command("a")
    case.turn(a)
    case.send(task_outcome(case, a, "failed"))
    case.turn(*dropped, completion=failing(a))
    return case
