"""Values that many messages share.

Messages are `msgspec.Struct`s rather than dataclasses: frozen and typed alike, but ten times
cheaper to create and convert (docs/adr/0002).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

RetryCause = Literal["failed", "timed-out", "worker-died"]
Outcome = Literal["completed", "failed", "timed-out", "canceled", "skipped", "fired"]
"""How a command ended. `fired` is a timer's; `skipped` a task's that a person answered."""


class Payload(Struct, frozen=True, gc=False):
    """A user's value, encoded without class names, so that any language can read it."""

    encoding: str
    """`json` (UTF-8), `null` or `bytes`."""
    data: bytes


NULL = Payload("null", b"")


class Failure(Struct, frozen=True, kw_only=True):
    """An error in language-neutral form."""

    name: str
    """The error's type, as its own language calls it: `ValueError`."""
    message: str
    stack: str = ""
    """The traceback as text; never parsed."""
    details: Payload | None = None
    cause: Failure | None = None
    retryable: bool = True
    next_delay_ms: int | None = None
    """The task's own wish for the next attempt; `None` leaves it to the retry policy."""


class Address(Struct, frozen=True, gc=False):
    """Where an answer goes: a topic of the same namespace, and the key to publish under."""

    topic: str
    key: str


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """When a failed attempt is tried again. The default of a task is a single attempt."""

    attempts_max: int = 1
    """Attempts in total; 0 means no limit."""
    initial_delay_ms: int = 1_000
    delay_factor: float = 2.0
    delay_max_ms: int = 100_000
    jitter: float = 0.5
    """Each delay is multiplied by a value in [1 - jitter, 1 + jitter], derived from the attempt's id."""
    non_retryable: list[str] = []
    """Names of errors that end the task at once."""


class TaskOptions(Struct, frozen=True, kw_only=True):
    """How a task is supervised. Time-outs are in milliseconds; `None` is no limit."""

    retry: RetryPolicy = RetryPolicy()
    queue_timeout_ms: int | None = None
    """From dispatch until an attempt starts."""
    attempt_timeout_ms: int | None = None
    """From an attempt's dispatch until its outcome."""
    heartbeat_timeout_ms: int | None = None
    """Between two heartbeats of one attempt."""
    total_timeout_ms: int | None = None
    """From the task's dispatch until its last outcome, retries included."""
    build: str | None = None
    tags: list[str] = []


ClosePolicy = Literal["abandon", "cancel", "terminate"]
"""What happens to a child whose parent ends first."""
BuildPolicy = Literal["current", "inherit"]
ConflictPolicy = Literal["use-existing", "fail", "terminate-existing"]
"""What a start does while a run of its workflow id is open."""
ReusePolicy = Literal["always", "after-failure", "never"]
"""After which end of the last run of its workflow id a start begins another, as long as that run is kept."""


RETENTION_MS = 7 * 24 * 3_600_000
"""Of a run, where neither its start nor the defaults of its workflow say otherwise."""


class RunOptions(Struct, frozen=True, kw_only=True):
    """How a run is kept. Durations are in milliseconds."""

    run_timeout_ms: int | None = None
    """From start to end; the run then ends `timed-out`. `None` leaves it to the defaults of the workflow: no limit
    where there are none."""
    retention_ms: int = RETENTION_MS
    """How long a run is kept after its end."""
    retention_given: bool = False
    """Set with a `retention_ms` of the sender's own. Without it one of 7 days leaves it to the defaults of the
    workflow: 7 days where there are none."""
    tags: list[str] = []
    attributes: Payload | None = None
    """Search attributes: a JSON object."""
    memo: Payload | None = None


class Parent(Struct, frozen=True, kw_only=True):
    """The command of another run that this run answers to."""

    workflow_id: str
    run_id: str
    command_id: str
    generation: int
    close_policy: ClosePolicy = "cancel"


class WorkflowRef(Struct, frozen=True, gc=False):
    """The run a task belongs to."""

    workflow_id: str
    run_id: str
    name: str


class SenderNumber(Struct, frozen=True, gc=False):
    """How far a sender has come with its signals to a workflow id."""

    sender: str
    number: int
    """Of its last signal that was recorded."""


class WaitGroup(Struct, frozen=True):
    """Part of what a run waits for; a `WaitsFor` is satisfied as soon as one of its groups is."""

    op: Literal["any", "all", "all_or_fail"]
    """`any`: one member ended; `all`: every member ended; `all_or_fail`: every member ended, or one
    did not complete."""
    ids: list[str]
    """Command ids of the members still open. Empty with a `ref` set: the group of the previous
    turn with that `ref`, unchanged. Empty without: the next turn follows at once."""
    ref: str = ""
    """Names the group within its run, so that an unchanged group need not be sent again."""


class WaitsFor(Struct, frozen=True):
    """What a run waits for after a turn: the engine starts the next turn when one group is satisfied.

    Signals, updates, cancels and timers of the run start a turn always.
    """

    groups: list[WaitGroup] = []
    channels: list[str] = []
    """Channels somebody receives from: for display."""


class ContinueAsNew(Struct, frozen=True, kw_only=True):
    """The run that takes over from one that ended `continued-as-new`."""

    name: str
    args: Payload
    build_policy: BuildPolicy = "current"
    unreceived: list[int] = []
    """Seqs of the signals nobody received: they move on to the next run."""


CompletionStatus = Literal["completed", "failed", "canceled", "continued-as-new"]


class Completion(Struct, frozen=True, kw_only=True):
    """How workflow code ended its run."""

    status: CompletionStatus
    result: Payload | None = None
    failure: Failure | None = None
    next_run: ContinueAsNew | None = None
    command_id: str = ""
    """The command whose failure workflow code let out: where a resume begins."""


CommandKind = Literal[
    "task",
    "child",
    "timer",
    "cancel",
    "signal",
    "inline",
    "attributes",
    "update-result",
]


class Command(Struct, frozen=True, kw_only=True):
    """What workflow code asked for at one position of its program.

    Which fields are set depends on `kind`:
    `task` (name, args, task) · `child` (name, args, child_id, close_policy, build_policy, build, run) ·
    `timer` (due_at) · `cancel` (target: a command id) · `signal` (target: a workflow id, name: the channel, args) ·
    `inline` (name, args: the recorded value, or failure) · `attributes` (args) ·
    `update-result` (target: an update id, name: the topic that awaits the answer, args or failure).
    """

    id: str
    """hash(namespace, workflow id, run id, generation, position), or the id of the rewound command it adopts."""
    position: str
    kind: CommandKind
    name: str = ""
    digest: str = ""
    """Hash of what must be equal in replay, arguments included."""
    args: Payload | None = None
    failure: Failure | None = None
    target: str = ""
    due_at: int | None = None
    """Epoch milliseconds."""
    task: TaskOptions | None = None
    child_id: str = ""
    close_policy: ClosePolicy = "cancel"
    build_policy: BuildPolicy = "current"
    build: str | None = None
    """Pins the child to this build, whatever build_policy says."""
    run: RunOptions | None = None


class Query(Struct, frozen=True, kw_only=True):
    """A read of a run's state, answered by a worker from committed turns only."""

    query_id: str
    name: str
    args: Payload
    reply_to: Address


class MoveCheck(Struct, frozen=True, kw_only=True):
    """A question to a worker of a build: can it replay a run that is to move there?"""

    question: str
    """Id of the message that asks for the move: the answer to that message is the answer to this."""
    asked_at: int
    """When that message was sent."""
    seq: int
    """The history to replay ends here."""
    build: str | None
    reason: str = ""
    actor: str = ""
    reply_topic: str = ""
    rescue: bool = False
