"""One workflow id under test: the real core behind the smallest possible driver, in memory, commits never lost.

case = Case()
case.start()
reaction = case.send(SendSignal(...))        # decide, evolve, effects, as the engine does them
case.turn(task("charge"), waits="charge")    # what a worker would answer to the turn it was asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.decide import decide
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.requests import workflow_task
from perdure_core.workflow_engine.rewind import decide_rewind, resume_parent
from perdure_core.workflow_engine.state import RunState, evolve, fold
from perdure_schemas import ids
from perdure_schemas.common import NULL, Command, Completion, Failure, Parent, RunOptions, WaitGroup, WaitsFor
from perdure_schemas.events import Event, Recorded
from perdure_schemas.messages import (
    Message,
    ResumeRun,
    RunWorkflowTask,
    StartWorkflow,
    WorkflowMessage,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)

NAMESPACE = "n"
WORKFLOW_ID = "order-1"
NOW = 1_700_000_000_000
FAILURE = Failure(name="ValueError", message="no")


@dataclass(kw_only=True)
class Reaction:
    """What one message did."""

    decision: d.Decision
    recorded: list[Recorded] = field(default_factory=list)
    published: list[d.Published] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [recorded.event for recorded in self.recorded]

    def sent(self, kind: type) -> list[Message]:
        """The published messages whose body is a `kind`."""
        return [message for _, message in self.published if isinstance(message.body, kind)]


class Case:
    """A workflow id, its current run and its committed history. `hold=True` leaves events uncommitted till `flush`."""

    def __init__(self, *, purged: bool = False) -> None:
        self.state = RunState(NAMESPACE, WORKFLOW_ID, 1)
        self.history: list[Recorded] = []
        self.committed = 0
        self.runs = 0
        self.purged = purged
        self.now = NOW
        self.build: str | None = None
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

    def context(self) -> d.Context:
        return d.Context(now=self.now, committed=self.committed, build=self.build, purged=self.purged)

    def decide(self, message: Message) -> d.Decision:
        body = message.body
        assert isinstance(body, WorkflowMessage)
        return decide(self.state, message, body, self.context())

    def send(self, body: WorkflowMessage, *, id: str = "", at: int | None = None, hold: bool = False) -> Reaction:
        return self.deliver(self.message(body, id=id, at=at), hold=hold)

    def deliver(self, message: Message, *, hold: bool = False) -> Reaction:
        """Decide the message and carry the decision out; a turn that is owed then is asked for."""
        reaction = Reaction(decision=self.decide(message))
        match reaction.decision:
            case d.Record() as record:
                self._record(record, message, reaction, hold=hold)
            case d.Rewind():
                self._rewind(message, reaction)
            case d.AlreadyRecorded():
                caused = [recorded for recorded in self.history if recorded.cause == message.id]
                reaction.published += [*effects(self.state, caused), *reply(self.state, message, "ok")]
            case d.Discard(publish=publish) | d.Serve(publish=publish):
                reaction.published += publish
            case d.RunTurn(attempt=attempt):
                reaction.published.append(workflow_task(self.state, self.committed, attempt=attempt))
            case d.AskWorker(query=query):
                reaction.published.append(workflow_task(self.state, self.committed, queries=[query]))
            case _:
                pass
        return reaction

    def _record(self, record: d.Record, message: Message, reaction: Reaction, *, hold: bool) -> None:
        if record.begins_run:
            self.runs += 1
            self.state, self.history, self.committed = RunState(NAMESPACE, WORKFLOW_ID, self.runs), [], 0
        for event in record.events:
            at = max(self.state.at, message.at)
            entry = Recorded(seq=self.state.seq + 1, at=at, cause=record.cause or message.id, event=event)
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

    def flush(self) -> list[d.Published]:
        """Commit what is held: its effects."""
        events = self.history[self.committed :]
        self.committed = self.state.seq
        return effects(self.state, events) if self.state.started is not None else []

    def owed(self) -> list[d.Published]:
        return [workflow_task(self.state, self.committed)] if self.state.needs_turn() else []

    def _rewind(self, message: Message, reaction: Reaction) -> None:
        body, ended = message.body, self.state.ended
        assert isinstance(body, ResumeRun)
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

    # -- what usually happens ----------------------------------------------------------------------

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

    def command(self, position: str, kind: str = "task", **fields: object) -> Command:
        """A command at `position`, under its derived id."""
        own = ids.command_id(NAMESPACE, WORKFLOW_ID, self.state.run_id, self.state.generation, position)
        command = {"id": own, "position": position, "kind": kind, "name": position, "args": NULL, **fields}
        return Command(**command)  # type: ignore[arg-type]


def start(
    *,
    run_id: str = "r1",
    parent: Parent | None = None,
    options: RunOptions | None = None,
    **more: object,
) -> StartWorkflow:
    return StartWorkflow(
        workflow_id=WORKFLOW_ID,
        run_id=run_id,
        name="order",
        args=NULL,
        parent=parent,
        options=options or RunOptions(),
        reply_topic="inbox.client",
        **more,  # type: ignore[arg-type]
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
        waits_for=waits if waits is not None else WaitsFor(groups=[WaitGroup(op="any", ids=supervised)]),
        completion=completion,
    )


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
