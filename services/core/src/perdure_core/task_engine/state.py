"""The record of one supervised task, and its codec.

(none) ── dispatch ──▶ queued ── started ──▶ running ── outcome ──▶ completed · failed · timed-out
                         ▲                      │                   canceled · skipped
                         └── due ── waiting-retry ◀── failed, retries left
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from perdure_schemas import ids
from perdure_schemas.common import NULL, Failure, Payload, TaskOptions
from perdure_schemas.messages import CancelTask, DispatchTask, TaskStatus

COMMANDS_KEPT = 100
"""So many messages from people are recognised when they come again; a task that had more has a story of its own."""

OPEN: frozenset[TaskStatus] = frozenset({"queued", "running", "waiting-retry"})
"""Statuses of a task without an outcome."""


class AttemptRef(Struct, frozen=True, gc=False):
    """An attempt, and the inbox of the worker that runs it."""

    attempt_id: str
    inbox: str


class TimerRef(Struct, frozen=True, gc=False):
    """A timer of an attempt."""

    generation: int
    attempt: int
    due_at: int


class TaskRecord(Struct, frozen=True, kw_only=True):
    """What is known of a task. Of a workflow's task it is supervision only: the run's history is the authority.

    Fields are only ever added, each with a default: old records stay readable.
    """

    task: DispatchTask
    """What to run. An empty name: the task was canceled before its dispatch came."""
    status: TaskStatus
    generation: int
    attempt: int
    """The current attempt; in `waiting-retry`, the one to come."""
    version: int
    """Counts saves of this record, from 1."""
    cause: str
    """Id of the message of the last transition: that message, if it comes again, re-emits the effects (rule 26)."""
    at: int
    """Time of the last save, taken from its message."""
    created_at: int
    """When this generation of the task was dispatched, as far as known: the total time-out counts from here."""
    dispatched_at: int
    """When the current attempt was dispatched."""
    relayed: bool = False
    """`queued`: this engine publishes RunTask; attempt 1 of a workflow's task comes from the workflow engine."""
    first_attempt: int = 1
    """The attempt from which the retry policy counts: a manual retry starts it anew."""
    started_at: int | None = None
    heartbeat_at: int | None = None
    deliveries: int = 0
    """How often the current attempt was delivered to a worker, as announced."""
    worker: str = ""
    inbox: str = ""
    """Topic of the worker that runs the current attempt; empty: not announced."""
    delegated: bool = False
    """The attempt handed the work on: the outcome comes by CompleteTask."""
    retry_at: int | None = None
    progress: Payload | None = None
    failure: Failure | None = None
    """The last one."""
    result: Payload | None = None
    closed: bool = False
    """Ended without an answer to `task.answer_to`: the workflow engine knows the outcome, or has no use for one."""
    waiters: list[str] = []
    """Topics to which the result goes, beside the task's `answer_to`."""
    commands: list[str] = []
    """Ids of the last messages from people and workflows, at most COMMANDS_KEPT: nothing else tells a repetition."""
    stopped: AttemptRef | None = None
    """The attempt that the last transition made useless."""
    reply_topic: str = ""
    """Where the last transition is answered."""
    timers: list[TimerRef] = []
    """Of the current attempt: those that were set, and were still to come at the last transition."""
    disarmed: list[TimerRef] = []
    """Those far ahead that the last transition made useless: of an attempt or a task that is over, so never set again.
    """

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def unborn(self) -> bool:
        return not self.task.name

    @property
    def attempt_id(self) -> str:
        return ids.attempt_id(self.task.task_id, self.generation, self.attempt)

    @property
    def running(self) -> AttemptRef | None:
        """The attempt a worker is known to be busy with."""
        return AttemptRef(self.attempt_id, self.inbox) if self.open and self.inbox else None


def born(task: DispatchTask, *, at: int, cause: str) -> TaskRecord:
    """The record of a task as it stands right after its dispatch."""
    return TaskRecord(
        task=task,
        status="queued",
        generation=task.generation,
        attempt=task.attempt,
        version=0,
        cause=cause,
        at=at,
        created_at=at,
        dispatched_at=at,
        relayed=not task.dispatched,
    )


def unborn(message: CancelTask) -> DispatchTask:
    """What a cancel tells of a task whose dispatch has not come yet."""
    return DispatchTask(
        task_id=message.task_id,
        name="",
        args=NULL,
        options=TaskOptions(),
        answer_to=message.answer_to,
        generation=message.generation,
        workflow=message.workflow,
    )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TaskRecord)


def encode(record: TaskRecord) -> bytes:
    return _encoder.encode(record)


def decode(data: bytes) -> TaskRecord:
    """Raises msgspec.ValidationError or msgspec.DecodeError: not written by `encode`."""
    return _decoder.decode(data)
