"""What happened in a simulated world. Facts alone: the checkers judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure_core.history import effective
from perdure_runtime.ports import Commit, Head, RunKey
from perdure_schemas.common import Command, WorkflowRef
from perdure_schemas.events import CommandSettled, Recorded, Rewound, RunEnded, TurnCommitted
from perdure_schemas.messages import (
    CommandReply,
    Message,
    RunTask,
    ScheduleTimer,
    StartWorkflow,
    TaskOutcome,
    TimerFired,
)

SET_UP_SECONDS = 0.5
"""By then every process of the world has joined."""
HARMLESS = frozenset({"delay", "clock_jump"})
"""Faults after which no engine has a reason to publish an attempt again."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One conditional write that was applied."""

    number: int
    process: str
    key: RunKey
    head: Head
    events: Sequence[Recorded]


@dataclass(slots=True)
class Run:
    """Everything ever recorded of one run."""

    workflow_id: str
    run_id: str
    events: list[Recorded] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    """Command in force -> number of the commit that holds its outcome."""
    closed: int | None = None
    """Number of the commit that ended it, unless it failed and may be resumed."""


@dataclass(slots=True)
class Attempted:
    """One attempt of a task: how often it was asked for, delivered, and run."""

    published: int = 0
    """By engines."""
    published_at: tuple[float, float] = (0.0, 0.0)
    """The first and the last time."""
    delivered: int = 0
    redelivered: int = 0
    """By the broker, since a consumer died or lost its session or acknowledgement."""
    duplicated: int = 0
    """By the broker, without such a reason: it stored the message twice."""
    executed: int = 0


class Ledger:
    def __init__(self) -> None:
        self.commits: list[Committed] = []
        self.heads: dict[RunKey, Head] = {}
        self.runs: dict[tuple[str, str], Run] = {}
        self.gone: set[tuple[str, str]] = set()
        """Runs that were purged."""
        self.attempts: dict[str, Attempted] = {}
        self.stats: Counter[str] = Counter()
        self.log: list[str] = []
        self.violations: list[str] = []
        """Of what can only be seen while it happens."""
        self.seen: dict[tuple[str, str], int] = {}
        """(process, workflow or task id) -> commits made when that process last read or wrote it."""
        self.outcomes: list[TaskOutcome] = []
        """Confirmed by the broker, from workers."""
        self.acknowledged: list[Message] = []
        """Confirmed by the broker, from clients."""
        self.told: set[str] = set()
        """Ids of client messages that an engine has answered with "ok"."""
        self.disturbed: list[float] = []
        """When anything went wrong, and when a consumer came, which moves keys to it."""

    # --- the store ----------------------------------------------------------------------------------

    def committed(self, process: str, commit: Commit) -> None:
        number = len(self.commits) + 1
        self.commits.append(Committed(number, process, commit.key, commit.head, commit.events))
        self.heads[commit.key] = commit.head
        self.saw(process, commit.key.workflow_id)
        run_id, workflow_id = commit.head.run_id, commit.key.workflow_id
        run = self.runs.setdefault((workflow_id, run_id), Run(workflow_id, run_id))
        for recorded in commit.events:
            run.events.append(recorded)
            self._note(run, recorded, number)

    def _note(self, run: Run, recorded: Recorded, number: int) -> None:
        match recorded.event:
            case TurnCommitted(commands=commands):
                run.commands.update({command.id: command for command in commands})
            case CommandSettled(command_id=command_id):
                run.settled.setdefault(command_id, number)
            case RunEnded(status=status):
                run.closed = None if status == "failed" else number
            case Rewound():
                in_force = {r.event.command_id for r in effective(run.events) if isinstance(r.event, CommandSettled)}
                run.settled = {id: at for id, at in run.settled.items() if id in in_force}
                run.closed = None
            case _:
                pass

    def purged(self, key: RunKey, run_id: str) -> None:
        self.gone.add((key.workflow_id, run_id))
        if key in self.heads and self.heads[key].run_id == run_id:
            del self.heads[key]

    def open_runs(self) -> list[str]:
        """Workflow ids of runs that have started and have no end, nor a failure that waits for a rewind."""
        open_ones = []
        for run in self.runs.values():
            last_rewind = max((r.seq for r in run.events if isinstance(r.event, Rewound)), default=0)
            if run.run_id and not any(isinstance(r.event, RunEnded) and r.seq > last_rewind for r in run.events):
                open_ones.append(run.workflow_id)
        return open_ones

    def saw(self, process: str, id: str) -> None:
        """This process has a view of that workflow or task id as of now."""
        self.seen[process, id] = len(self.commits)

    # --- the broker ---------------------------------------------------------------------------------

    def published(self, process: str, message: Message, at: float) -> None:
        """An engine or worker hands a message to the broker."""
        body = message.body
        if isinstance(body, RunTask):
            attempt = self.attempts.setdefault(body.attempt_id, Attempted())
            attempt.published_at = (attempt.published_at[0] if attempt.published else at), at
            attempt.published += 1
            if body.workflow is not None:
                self._published_task(process, body, body.workflow)
        elif isinstance(body, CommandReply) and body.status == "ok":
            self.told.add(message.causation_id or "")
        elif isinstance(body, StartWorkflow) and body.parent is not None:
            self._expect_command(process, body.parent.workflow_id, body.parent.run_id, body.parent.command_id)
        elif isinstance(body, ScheduleTimer):
            fires = body.fires
            if isinstance(fires, TimerFired) and fires.kind == "command":
                self._expect_command(process, fires.workflow_id, fires.run_id, fires.command_id)

    def _published_task(self, process: str, task: RunTask, ref: WorkflowRef) -> None:
        run = self._expect_command(process, ref.workflow_id, ref.run_id, task.task_id)
        if run is None:
            return
        supervised = process.startswith("task-engine")
        seen = self.seen.get((process, task.task_id if supervised else ref.workflow_id), 0)
        settled = run.settled.get(task.task_id)
        what = f"{process} published attempt {task.attempt} of {task.name} ({task.task_id[:8]})"
        if settled is not None and settled <= seen:
            self.violations.append(f"late RunTask: {what} after its outcome was recorded")
        elif run.closed is not None and run.closed <= seen:
            self.violations.append(f"late RunTask: {what} after its run had ended")

    def _expect_command(self, process: str, workflow_id: str, run_id: str, command_id: str) -> Run | None:
        run = self.runs.get((workflow_id, run_id))
        if run is None or command_id not in run.commands:
            self.violations.append(f"phantom: {process} acts on command {command_id[:8]}, which no turn has recorded")
            return None
        return run

    def confirmed(self, message: Message) -> None:
        """The broker has told the publisher that it has the message."""
        if isinstance(message.body, TaskOutcome):
            self.outcomes.append(message.body)

    def doubled(self, message: Message) -> None:
        """The broker stores a message twice."""
        if isinstance(message.body, RunTask):
            self.attempts.setdefault(message.body.attempt_id, Attempted()).duplicated += 1

    def delivered(self, message: Message, redeliveries: int) -> None:
        """A worker gets a message."""
        if isinstance(message.body, RunTask):
            attempt = self.attempts.setdefault(message.body.attempt_id, Attempted())
            attempt.delivered += 1
            attempt.redelivered += redeliveries > 0

    def executed(self, attempt_id: str) -> None:
        """User code of a task begins."""
        self.attempts.setdefault(attempt_id, Attempted()).executed += 1

    def arrived(self, at: float) -> None:
        """A consumer joins its subscription. Those that are there from the beginning move no key."""
        if at > SET_UP_SECONDS:
            self.disturbed.append(at)

    def fault(self, kind: str, at: float, what: str = "") -> None:
        self.stats[kind] += 1
        if kind not in HARMLESS:
            self.disturbed.append(at)
        self.log.append(f"{at:9.3f} {kind} {what}")
