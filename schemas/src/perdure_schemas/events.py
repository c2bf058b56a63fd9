"""History: what a run's past is made of. Appended, never changed; named in the past tense."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from perdure_schemas.common import (
    Command,
    Completion,
    Failure,
    Outcome,
    Parent,
    Payload,
    RunOptions,
    SenderNumber,
    WaitsFor,
)

StuckKind = Literal["bug", "changed", "timeout", "worker-died"]
RunStatus = Literal[
    "running", "paused", "stuck", "failed", "completed", "canceled", "terminated", "timed-out", "continued-as-new"
]
EndStatus = Literal["failed", "completed", "canceled", "terminated", "timed-out", "continued-as-new"]


class Started(Struct, frozen=True, kw_only=True, tag=True):
    run_id: str
    name: str
    args: Payload
    options: RunOptions
    """As they hold for the run: those of its start, with the defaults of the workflow where it gave none."""
    parent: Parent | None = None
    build: str | None = None
    """The build the run is pinned to; `None` runs on any."""
    continued_from: str | None = None
    """The run id before a continue-as-new."""
    reply_topic: str = ""
    """Where the run's end is told, beside the parent; empty: nowhere."""
    first_run_id: str = ""
    """The first run of the chain of continue-as-new; its own id where it is the first."""
    senders: list[SenderNumber] = []
    """Who sent signals to earlier runs of the workflow id: a sender's numbers count on over its runs."""
    run_timeout_defaulted: bool = False
    """The run's time-out is the default of the workflow: what continues the run gets that of its own time."""
    retention_defaulted: bool = False
    """As `run_timeout_defaulted`."""


class TurnCommitted(Struct, frozen=True, kw_only=True, tag=True):
    """A worker's decision turn: the commands it issued and what the run waits for after it."""

    workflow_task_id: str
    base: int
    """The seq up to which the turn had seen the history."""
    nonce: str
    """The id of the very message that brought it: two executions of a turn differ in their inline values."""
    generation: int
    commands: list[Command]
    waits_for: WaitsFor
    patches: list[str] = []
    build: str = ""
    python: str = ""


class CommandSettled(Struct, frozen=True, kw_only=True, tag=True):
    """The first recorded outcome of a command: of a task, a child or a timer."""

    command_id: str
    outcome: Outcome
    result: Payload | None = None
    failure: Failure | None = None
    generation: int = 0
    attempt: int = 0


class SignalReceived(Struct, frozen=True, kw_only=True, tag=True):
    channel: str
    payload: Payload
    sender: str
    number: int


class UpdateReceived(Struct, frozen=True, kw_only=True, tag=True):
    update_id: str
    name: str
    args: Payload
    reply_topic: str = ""


class CancelRequested(Struct, frozen=True, kw_only=True, tag=True):
    reason: str
    actor: str


class Paused(Struct, frozen=True, kw_only=True, tag=True):
    reason: str
    actor: str


class Unpaused(Struct, frozen=True, kw_only=True, tag=True):
    reason: str
    actor: str


class Stuck(Struct, frozen=True, kw_only=True, tag=True):
    """A turn could not be run: a bug in workflow code, changed code, a time-out, a dying worker."""

    workflow_task_id: str
    kind: StuckKind
    failure: Failure
    build: str = ""


class Edit(Struct, frozen=True, kw_only=True):
    """A person's correction of one task, at resume: new arguments, or an answer instead of it."""

    position: str
    args: Payload | None = None
    result: Payload | None = None


class Rewound(Struct, frozen=True, kw_only=True, tag=True):
    """The run goes on from just after `to_seq`; what lies between is kept as ARCHITECTURE section 6 says."""

    to_seq: int
    generation: int
    reason: str
    actor: str
    edits: list[Edit] = []
    position: str = ""
    """Set by a reset: commands from this position on are done anew, even if they had completed."""
    taken_back: list[str] = []
    """Ids of commands whose result, given by skip, counts no more: a person corrected it."""


class RunMoved(Struct, frozen=True, kw_only=True, tag=True):
    build: str | None
    reason: str
    actor: str


class RunEnded(Struct, frozen=True, kw_only=True, tag=True):
    status: EndStatus
    result: Payload | None = None
    failure: Failure | None = None
    next_run_id: str = ""
    completion: Completion | None = None
    """What workflow code returned; `None` where the engine ended the run."""
    final: bool = False
    """Of a failed run: it can be resumed no more, for it is purged or another run follows it."""

    @property
    def resumable(self) -> bool:
        """Whether a rewind can continue the run, so that it goes on recording outcomes and signals."""
        return self.status == "failed" and not self.final


Event: TypeAlias = (
    Started
    | TurnCommitted
    | CommandSettled
    | SignalReceived
    | UpdateReceived
    | CancelRequested
    | Paused
    | Unpaused
    | Stuck
    | Rewound
    | RunMoved
    | RunEnded
)


class Recorded(Struct, frozen=True, kw_only=True):
    """One event of a run's history."""

    seq: int
    """1 for the first."""
    at: int
    """Epoch milliseconds: the time workflow code sees while this event is applied."""
    cause: str
    """Id of the message that caused it."""
    event: Event
