"""Everything that travels, by the topic family it travels on.

Commands are imperative (`CancelRun`), reports past tense (`TimerFired`). Ids are strings, times are
epoch milliseconds, durations milliseconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from perdure_schemas.changes import RunChanged as RunChanged
from perdure_schemas.changes import RunPurged as RunPurged
from perdure_schemas.changes import TaskChanged as TaskChanged
from perdure_schemas.changes import TaskStatus as TaskStatus
from perdure_schemas.common import (
    Address,
    Command,
    Completion,
    ConflictPolicy,
    Failure,
    MoveCheck,
    Outcome,
    Parent,
    Payload,
    Query,
    ReusePolicy,
    RunOptions,
    TaskOptions,
    WaitsFor,
    WorkflowRef,
)
from perdure_schemas.events import Edit, Recorded, StuckKind
from perdure_schemas.moves import MoveChecked as MoveChecked
from perdure_schemas.moves import MoveRun as MoveRun
from perdure_schemas.replies import AttemptCancelRequested as AttemptCancelRequested
from perdure_schemas.replies import CommandReply as CommandReply
from perdure_schemas.replies import HistoryPage as HistoryPage
from perdure_schemas.replies import QueryResult as QueryResult
from perdure_schemas.replies import ReplyStatus as ReplyStatus
from perdure_schemas.replies import RunResult as RunResult
from perdure_schemas.replies import StartReply as StartReply
from perdure_schemas.replies import TaskResult as TaskResult
from perdure_schemas.replies import UpdateResult as UpdateResult

# --- to the workflow engine (key: workflow id) ---------------------------------------------------


class StartWorkflow(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    """Chosen by the sender: a repeated start is the same run."""
    name: str
    args: Payload
    options: RunOptions = RunOptions()
    conflict_policy: ConflictPolicy = "fail"
    reuse_policy: ReusePolicy = "always"
    parent: Parent | None = None
    build: str | None = None
    """Pins the run to a build; `None` leaves it to the routing record of the workflow."""
    reply_topic: str = ""
    """Where `StartReply` and, at the end, `RunResult` go."""
    continued_from: str | None = None
    signals: list[Recorded] = []
    """At continue-as-new: signals that the run before did not receive."""


class WorkflowTaskCompleted(Struct, frozen=True, kw_only=True):
    """A turn's result. The id of the message that carries it is the turn's nonce."""

    workflow_id: str
    run_id: str
    workflow_task_id: str
    generation: int
    committed: int
    base: int
    base_hash: str
    hashes: list[str]
    """Chain hashes of the seqs committed + 1 … base, as in RunWorkflowTask."""
    commands: list[Command]
    waits_for: WaitsFor
    completion: Completion | None = None
    patches: list[str] = []
    build: str = ""
    python: str = ""


class WorkflowTaskFailed(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    workflow_task_id: str
    base: int
    base_hash: str
    generation: int
    attempt: int
    kind: StuckKind
    failure: Failure
    build: str = ""


class GetHistory(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    after_seq: int
    up_to: int
    """0: to the end."""
    reply_topic: str


class TaskOutcome(Struct, frozen=True, kw_only=True):
    """A worker (or, for what it decides, the task engine) tells how a task of a workflow ended."""

    workflow_id: str
    run_id: str
    command_id: str
    generation: int
    attempt: int
    outcome: Outcome
    result: Payload | None = None
    failure: Failure | None = None


class ChildOutcome(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    command_id: str
    generation: int
    outcome: Outcome
    result: Payload | None = None
    failure: Failure | None = None


TimerKind = Literal["command", "run-timeout", "turn", "retention"]


class TimerFired(Struct, frozen=True, kw_only=True, tag=True):
    """`command`: a timer of workflow code; `turn`: look whether a turn is owed (time-out, stuck retry)."""

    workflow_id: str
    run_id: str
    kind: TimerKind
    command_id: str = ""
    generation: int = 0
    attempt: int = 0
    due_at: int = 0


class SendSignal(Struct, frozen=True, kw_only=True):
    workflow_id: str
    channel: str
    payload: Payload
    sender: str
    number: int
    """Counts the signals of this sender to this workflow id, from 1."""
    after_number: int = 0
    """The last number the sender had confirmed before it sent this one: it is recorded first."""
    run_id: str = ""
    reply_topic: str = ""


class UpdateRun(Struct, frozen=True, kw_only=True):
    workflow_id: str
    update_id: str
    name: str
    args: Payload
    reply_topic: str
    run_id: str = ""


class QueryRun(Struct, frozen=True, kw_only=True):
    workflow_id: str
    query: Query
    run_id: str = ""


ControlAction = Literal["cancel", "terminate", "pause", "unpause"]


class ControlRun(Struct, frozen=True, kw_only=True):
    """Cancel, terminate, pause or unpause."""

    workflow_id: str
    action: ControlAction
    reason: str = ""
    actor: str = ""
    run_id: str = ""
    """Empty: the current run."""
    reply_topic: str = ""


class ResumeRun(Struct, frozen=True, kw_only=True):
    """Rewinds to just before the failure, or, with `position`, to just before that command."""

    workflow_id: str
    reason: str = ""
    actor: str = ""
    run_id: str = ""
    position: str = ""
    command_id: str = ""
    """From a resumed child: rewind to just before its recorded failure."""
    edits: list[Edit] = []
    only: bool = False
    """Do not rewind the parent that took this run's failure."""
    reply_topic: str = ""
    anyway: bool = False
    """Though tasks that the code issued after the failure have completed, and stay done."""


class WaitForResult(Struct, frozen=True, kw_only=True):
    workflow_id: str
    reply_topic: str
    run_id: str = ""


WorkflowMessage: TypeAlias = (
    StartWorkflow
    | WorkflowTaskCompleted
    | WorkflowTaskFailed
    | GetHistory
    | TaskOutcome
    | ChildOutcome
    | TimerFired
    | SendSignal
    | UpdateRun
    | QueryRun
    | ControlRun
    | ResumeRun
    | MoveRun
    | WaitForResult
    | MoveChecked
)

# --- to the task engine (key: task id) -----------------------------------------------------------


class DispatchTask(Struct, frozen=True, kw_only=True):
    """Supervise this task. With `dispatched`, attempt 1 is already on its way."""

    task_id: str
    name: str
    args: Payload
    options: TaskOptions
    answer_to: list[Address]
    generation: int = 0
    dispatched: bool = True
    attempt: int = 1
    workflow: WorkflowRef | None = None


class AttemptOutcome(Struct, frozen=True, kw_only=True):
    """A worker tells how one attempt ended. It carries what a record needs, should there be none yet."""

    task_id: str
    attempt_id: str
    attempt: int
    outcome: Outcome
    generation: int = 0
    result: Payload | None = None
    failure: Failure | None = None
    delegated: bool = False
    """The attempt only handed the work on; `CompleteDelegated` brings the outcome."""
    task: DispatchTask | None = None
    """Set on failure."""


class AttemptStarted(Struct, frozen=True, kw_only=True):
    """Sent when heartbeats or a queue time-out are asked for, and whenever RunTask was redelivered."""

    task_id: str
    attempt_id: str
    attempt: int
    generation: int
    deliveries: int
    worker: str
    inbox: str = ""
    task: DispatchTask | None = None


class AttemptHeartbeat(Struct, frozen=True, kw_only=True):
    task_id: str
    attempt_id: str
    attempt: int
    generation: int
    progress: Payload | None = None
    inbox: str = ""


class CancelTask(Struct, frozen=True, kw_only=True):
    task_id: str
    reason: str = ""
    actor: str = ""
    generation: int = 0
    reply_topic: str = ""
    workflow: WorkflowRef | None = None
    answer_to: list[Address] = []


class RetryTask(Struct, frozen=True, kw_only=True):
    """A new attempt now, with edited input if given."""

    task_id: str
    reason: str = ""
    actor: str = ""
    args: Payload | None = None
    reply_topic: str = ""


class CompleteTask(Struct, frozen=True, kw_only=True):
    """An outcome from outside: a person's (`skipped`), or a delegated task's."""

    task_id: str
    outcome: Outcome
    result: Payload | None = None
    failure: Failure | None = None
    reason: str = ""
    actor: str = ""
    reply_topic: str = ""


class WaitForTask(Struct, frozen=True, kw_only=True):
    task_id: str
    reply_topic: str


class TaskTimerFired(Struct, frozen=True, kw_only=True, tag=True):
    """The one deadline of a supervised task has come; the record says which."""

    task_id: str
    generation: int
    attempt: int
    due_at: int
    task: DispatchTask


TaskMessage: TypeAlias = (
    DispatchTask
    | AttemptOutcome
    | AttemptStarted
    | AttemptHeartbeat
    | CancelTask
    | RetryTask
    | CompleteTask
    | WaitForTask
    | TaskTimerFired
)

# --- to workers ----------------------------------------------------------------------------------


class RunWorkflowTask(Struct, frozen=True, kw_only=True):
    """Run one decision turn (or, with `queries`, only answer them; with `check`, only replay what is committed)."""

    workflow_task_id: str
    workflow_id: str
    run_id: str
    name: str
    generation: int
    attempt: int
    committed: int
    """The seq up to which the history is committed; GetHistory serves up to here."""
    base: int
    base_hash: str
    hashes: list[str]
    previous_hash: str = ""
    """Chain hash at the base of the last turn in force; empty: none yet, `events` is the whole history."""
    previous_nonce: str = ""
    previous_base: int = 0
    events: list[Recorded] = []
    """Events no turn has been fed yet, in order, up to `base`."""
    adoptable: list[Command] = []
    """After a rewind: commands of the dropped turns that the code may issue again; if they are large, without args."""
    history_length: int = 0
    build: str | None = None
    queries: list[Query] = []
    check: MoveCheck | None = None


class RunTask(Struct, frozen=True, kw_only=True):
    """Run one attempt; publish its outcome to every address of `answer_to`, in order, then acknowledge."""

    task_id: str
    """Stable over attempts: the idempotency key of the work."""
    attempt_id: str
    attempt: int
    name: str
    args: Payload
    options: TaskOptions
    answer_to: list[Address]
    generation: int = 0
    last_failure: Failure | None = None
    workflow: WorkflowRef | None = None
    supervised: bool = True
    """Whether the task engine knows of the task. If not, it need not be told of a success within 450 ms of the
    message's `at`."""


class WorkerHello(Struct, frozen=True, kw_only=True):
    worker: str
    build: str
    workflows: list[str]
    tasks: list[str]
    slots: int


WorkerMessage: TypeAlias = (
    RunWorkflowTask
    | RunTask
    | HistoryPage
    | AttemptCancelRequested
    | StartReply
    | RunResult
    | TaskResult
    | CommandReply
    | QueryResult
    | UpdateResult
    | WorkerHello
)

# --- timers --------------------------------------------------------------------------------------


class ScheduleTimer(Struct, frozen=True, kw_only=True):
    timer_id: str
    due_at: int
    target: Address
    fires: TimerFired | TaskTimerFired
    message_id: str
    """The id the fired message will have."""


class CancelTimer(Struct, frozen=True, kw_only=True):
    timer_id: str
    due_at: int = 0
    """When it would fire, by which a store finds it; 0: its sender does not know."""


TimerMessage: TypeAlias = ScheduleTimer | CancelTimer

# --- events: what read models and listeners see ---------------------------------------------------


EventMessage: TypeAlias = RunChanged | RunPurged | TaskChanged

Body: TypeAlias = WorkflowMessage | TaskMessage | WorkerMessage | TimerMessage | EventMessage


class Message(Struct, frozen=True, kw_only=True):
    """A body with its header."""

    id: str
    """Derived for what engines make, so that a repetition is recognised; UUIDv7 from clients and workers."""
    namespace: str
    key: str
    at: int
    """When it was emitted. Engines take the time of what they decide from here, never from a clock."""
    body: Body
    emitter: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
