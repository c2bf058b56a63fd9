"""What happened in a simulated world. Facts alone: the checkers judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perdure_core.history import effective
from perdure_runtime.ports import NO_HEAD, Commit, Head, RunKey, vacant_head
from perdure_schemas.common import Command, WorkflowRef
from perdure_schemas.events import CommandSettled, Recorded, Rewound, RunEnded, Started, TurnCommitted
from perdure_schemas.messages import (
    CommandReply,
    Message,
    RunTask,
    ScheduleTimer,
    StartWorkflow,
    TaskOutcome,
    TaskTimerFired,
    TimerFired,
)

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
    before: Head
    """The one it took the place of."""


@dataclass(slots=True)
class Run:
    """Everything ever recorded of one run."""

    workflow_id: str
    run_id: str
    events: list[Recorded] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    """Command in force -> number of the commit that holds its outcome, or the workflow's own cancel of it."""
    closed: int | None = None
    """Number of the commit that ended it, unless it failed and may be resumed."""

    @property
    def end(self) -> RunEnded | None:
        """Its last one, unless a rewind has undone it."""
        for recorded in reversed(self.events):
            if isinstance(recorded.event, Rewound):
                return None
            if isinstance(recorded.event, RunEnded):
                return recorded.event
        return None


@dataclass(slots=True)
class Attempted:
    """One attempt of a task: how often it was asked for, delivered, and run."""

    published: int = 0
    """By engines."""
    published_at: tuple[float, float] = (0.0, 0.0)
    """The first and the last time."""
    keys: frozenset[str] = frozenset()
    """Under which engines hear of it: its task's id, and the id of the run's workflow."""
    delivered: int = 0
    redelivered: int = 0
    """By the broker, since a consumer died or lost its session or acknowledgement."""
    duplicated: int = 0
    """By the broker, without such a reason: it stored the message twice."""
    executed: int = 0


def _ends_of(recorded: Recorded) -> list[str]:
    """Commands that the event settles: by their outcome, or since the workflow itself canceled them."""
    match recorded.event:
        case CommandSettled(command_id=command_id):
            return [command_id]
        case TurnCommitted(commands=commands):
            return [command.target for command in commands if command.kind == "cancel"]
        case _:
            return []


def _parent_may_resume(run: Run, runs: Mapping[tuple[str, str], Run]) -> bool:
    """Whether its parent has failed, and a rewind could still continue it."""
    started = run.events[0].event
    if not isinstance(started, Started) or started.parent is None:
        return False
    parent = runs[started.parent.workflow_id, started.parent.run_id]
    return parent.end is not None and parent.end.resumable


class Ledger:
    def __init__(self) -> None:
        self.commits: list[Committed] = []
        self.ends = 0
        """Of runs, recorded so far."""
        self.heads: dict[RunKey, Head] = {}
        self._expiry: dict[RunKey, int] = {}
        """When heads of runs that are not born vanish."""
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
        """When anything went wrong."""
        self.handlers: dict[tuple[str, str], str] = {}
        """(subscription, key) -> the process that got the last message of the key."""
        self.fired: dict[str, str] = {}
        """Message id of a timer's firing -> the process that published it last."""
        self.moved: dict[str, list[float]] = {}
        """Key -> when an engine got a message of it, and another had got the one before."""
        self.fired_again: dict[str, list[float]] = {}
        """Key -> when a second owner of the timers fired one of it: a zombie never learns here that it has an heir."""

    # --- the store ----------------------------------------------------------------------------------

    def committed(self, process: str, commit: Commit, now_ms: int) -> None:
        number = len(self.commits) + 1
        if self._expiry.pop(commit.key, now_ms + 1) <= now_ms:
            _vacate(self, commit.key)
        before = self.heads.get(commit.key, NO_HEAD)
        self.commits.append(Committed(number, process, commit.key, commit.head, commit.events, before))
        self.heads[commit.key] = commit.head
        if commit.unborn_ttl_ms is not None:
            self._expiry[commit.key] = now_ms + commit.unborn_ttl_ms
        self.saw(process, commit.key.workflow_id)
        run_id, workflow_id = commit.head.run_id, commit.key.workflow_id
        run = self.runs.setdefault((workflow_id, run_id), Run(workflow_id, run_id))
        for recorded in commit.events:
            run.events.append(recorded)
            self._note(run, recorded, number)

    def _note(self, run: Run, recorded: Recorded, number: int) -> None:
        match recorded.event:
            case TurnCommitted(commands=commands):
                for command in commands:
                    run.commands[command.id] = command
                    run.settled.pop(command.id, None)  # an outcome counts from the turn in force that issued it
                for command_id in _ends_of(recorded):
                    run.settled.setdefault(command_id, number)
            case CommandSettled(command_id=command_id):
                run.settled.setdefault(command_id, number)
            case RunEnded() as ended:
                self.ends += 1
                run.closed = None if ended.resumable else number
            case Rewound():
                in_force = {command_id for each in effective(run.events) for command_id in _ends_of(each)}
                run.settled = {id: at for id, at in run.settled.items() if id in in_force}
                run.closed = None
            case _:
                pass

    def purged(self, key: RunKey, run_id: str) -> None:
        self.gone.add((key.workflow_id, run_id))
        head = self.heads.get(key)
        if head is not None and (head.run_id == run_id or not head.version):
            _vacate(self, key)

    def open_runs(self) -> list[str]:
        """Workflow ids of runs that have started and have no end, nor a failure that waits for a rewind; nor has the
        parent such a failure."""
        return [
            run.workflow_id
            for run in self.runs.values()
            if run.run_id and run.end is None and not _parent_may_resume(run, self.runs)
        ]

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
            attempt.keys = frozenset({body.task_id, *([] if body.workflow is None else [body.workflow.workflow_id])})
            if body.workflow is not None:
                self._published_task(process, body, body.workflow)
        elif isinstance(body, TaskTimerFired | TimerFired):
            if self.fired.setdefault(message.id, process) != process:
                self.fired_again.setdefault(message.key, []).append(at)
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

    def taken(self, process: str, subscription: str, key: str, at: float) -> None:
        """An engine gets a message."""
        before = self.handlers.get((subscription, key), process)
        self.handlers[subscription, key] = process
        if before != process:
            self.moved.setdefault(key, []).append(at)

    def fault(self, kind: str, at: float, what: str = "") -> None:
        self.stats[kind] += 1
        if kind not in HARMLESS:
            self.disturbed.append(at)
        self.log.append(f"{at:9.3f} {kind} {what}")


def _vacate(ledger: Ledger, key: RunKey) -> None:
    """Its current run is gone: versions begin again, and runs are counted on while earlier ones are kept."""
    runs = ledger.heads.pop(key, NO_HEAD).runs
    kept = (run for run in ledger.runs if run[0] == key.workflow_id and run[1] and run not in ledger.gone)
    if any(kept):
        ledger.heads[key] = vacant_head(runs)
