"""The state of a run, and how each event changes it.

Theory: the state is a fold of the history. `Recorded` events are chained by hash, so that an engine and a
worker can tell with one comparison whether they mean the same past. A turn rests on a base (a seq and its
hash); events that arrived later are *unfed* until a turn with a later base has seen them.

    unborn --Started--> running --RunEnded--> ended        (failed: goes on recording, may be rewound)
                          | ^
              Stuck, Paused| |TurnCommitted, Unpaused
                          v |
                       stuck, paused
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias, assert_never

import msgspec

from perdure_core.history import effective
from perdure_core.workflow_engine.lineage import SUPERVISED, Orphan, sent_signals, trace
from perdure_core.workflow_engine.waits import Waits
from perdure_schemas import ids
from perdure_schemas.common import Command, Outcome, Payload
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
    Edit,
    Event,
    Paused,
    Recorded,
    Rewound,
    RunEnded,
    RunMoved,
    RunStatus,
    SignalReceived,
    Started,
    Stuck,
    TurnCommitted,
    Unpaused,
    UpdateReceived,
)


@dataclass(slots=True)
class CommandState:
    """A command in force."""

    command: Command
    generation: int
    """Number of rewinds before it was last dispatched: failures of older ones do not count."""
    settled: Outcome | None = None


Dispatched: TypeAlias = CommandState | Orphan


ANSWERS_MAX = 1_000
"""Of updates, in memory with the run: whoever asks for one again does so soon, and later learns that it was done."""


@dataclass(slots=True)
class RunState:
    """Everything the engine knows of a workflow id's current run. Changed by `evolve` alone."""

    namespace: str
    workflow_id: str
    ordinal: int
    """Which run of the workflow id this is, from 1: the start of its hash chain."""
    run_id: str = ""
    started: Started | None = None
    started_at: int = 0
    seq: int = 0
    at: int = 0
    hashes: list[str] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)
    commands: dict[str, CommandState] = field(default_factory=dict)
    waits: Waits = field(default_factory=Waits)
    unfed: list[Recorded] = field(default_factory=list)
    wake: bool = False
    """An unfed event starts a turn whatever the run waits for: a start, signal, update, cancel, timer or rewind."""
    turn: TurnCommitted | None = None
    """The last turn in force."""
    turn_seq: int = 0
    rewound_seq: int = 0
    generation: int = 0
    timed_from: dict[int, int] = field(default_factory=dict)
    """By generation: since when its run time-out counts."""
    edits: dict[str, Edit] = field(default_factory=dict)
    orphans: dict[str, Orphan] = field(default_factory=dict)
    unsaid: dict[str, Command] = field(default_factory=dict)
    """Signals that dropped turns sent: issued again, they are not sent again."""
    undone: set[str] = field(default_factory=set)
    """Commands in force whose failure the last rewind dropped: they are dispatched again."""
    abandoned: dict[int, list[Orphan]] = field(default_factory=dict)
    """By generation: open commands that its rewind asked to be done anew: the old ones are canceled."""
    dropped_children: dict[str, str] = field(default_factory=dict)
    """By command id: workflow ids, given by their author, of children that rewinds dropped: they may be there still."""
    ended: RunEnded | None = None
    ended_at: int = 0
    ended_seq: int = 0
    stuck: Stuck | None = None
    stuck_seq: int = 0
    stuck_count: int = 0
    """Failures of the next turn that were news: they wait longer, however much they differ."""
    paused: bool = False
    canceled: CancelRequested | None = None
    build: str | None = None
    senders: dict[str, int] = field(default_factory=dict)
    """Sender -> the number of its last signal, also to earlier runs of the workflow id; who sent last stands last."""
    signals: dict[int, Recorded] = field(default_factory=dict)
    """By seq: what moves on at continue-as-new is the code's to say, and it may be any of them."""
    updates: dict[str, str] = field(default_factory=dict)
    """Open updates: id -> topic that awaits the answer."""
    update_ids: set[str] = field(default_factory=set)
    """Of all updates that were received: one that is asked for again is not applied again."""
    answers: dict[str, Command] = field(default_factory=dict)
    """Of the last updates, by their ids."""
    attributes: Payload | None = None

    def __post_init__(self) -> None:
        self.hashes.append(ids.chain_start(f"{self.namespace}\x1f{self.workflow_id}\x1f{self.ordinal}"))

    @property
    def resumable(self) -> bool:
        """Ended, but a rewind can continue it: it goes on recording outcomes and signals."""
        return self.ended is not None and self.ended.resumable

    @property
    def closed(self) -> bool:
        """Ended for good, unless somebody resets it."""
        return self.ended is not None and not self.resumable

    @property
    def status(self) -> RunStatus:
        if self.ended is not None:
            return self.ended.status
        if self.stuck is not None:
            return "stuck"
        return "paused" if self.paused else "running"

    def is_meant(self, run_id: str) -> bool:
        """Whether a message for `run_id` is for this run: by its own id, or by that of the first of its chain."""
        return self.started is not None and run_id in ("", self.run_id, self.started.first_run_id)

    def needs_turn(self) -> bool:
        """Whether a decision turn is owed on the events known."""
        if self.started is None or self.ended is not None or self.paused or self.stuck is not None:
            return False
        if not self.unfed:
            return self.waits.at_once
        return self.wake or self.waits.satisfied or self.turn is None

    @property
    def still_open(self) -> list[Dispatched]:
        """What goes on somewhere for this run, for dropped turns too."""
        issued = [known for known in self.commands.values() if known.settled is None]
        dropped = [orphan for orphan in self.orphans.values() if orphan.under_way]
        return [*issued, *dropped]

    def open_command(self, command_id: str) -> CommandState | None:
        state = self.commands.get(command_id)
        return state if state is not None and state.settled is None else None

    def under_way(self, command_id: str) -> Dispatched | None:
        """A command that goes on somewhere, also if a rewind dropped its turn: a later turn may adopt it."""
        orphan = self.orphans.get(command_id)
        if orphan is None:
            return self.open_command(command_id)
        return orphan if orphan.under_way else None


def fold(namespace: str, workflow_id: str, ordinal: int, history: Sequence[Recorded]) -> RunState:
    """The state after a whole history, rewinds included."""
    state = RunState(namespace, workflow_id, ordinal)
    for recorded in history:
        _chain(state, recorded)
    in_force = effective(history)
    for recorded in in_force:
        _apply(state, recorded)
    if state.rewound_seq:
        _trace_commands(state, history, in_force)
    return state


def _trace_commands(state: RunState, history: Sequence[Recorded], in_force: Sequence[Recorded]) -> None:
    lineage = trace(history)
    sent = sent_signals(in_force)
    everything = sent_signals(history).items()
    state.unsaid = {id: command for id, command in everything if id not in sent and id not in lineage.reset}
    for command_id, command in state.commands.items():
        command.generation = lineage.generation(command_id)
    state.undone, state.abandoned = lineage.undone, lineage.abandoned
    state.orphans = lineage.orphans(set(state.commands))
    state.dropped_children = lineage.dropped_children(set(state.commands))


def evolve(state: RunState, recorded: Recorded) -> None:
    """Apply one new event. A `Rewound` changes what came before it: `fold` the history instead.

    Raises:
        ValueError: on a Rewound.
    """
    if isinstance(recorded.event, Rewound):
        raise ValueError("a Rewound re-reads the past: fold the whole history")
    _chain(state, recorded)
    _apply(state, recorded)


def _chain(state: RunState, recorded: Recorded) -> None:
    state.seq, state.at = recorded.seq, recorded.at
    state.causes.setdefault(recorded.cause, recorded.seq)
    event = recorded.event
    state.hashes.append(ids.chain_next(state.hashes[-1], type(event).__name__, recorded.cause, _digest(recorded)))


def _digest(recorded: Recorded) -> bytes:
    """Of what two events with the same cause could differ in: their time, which workflow code sees (a timer's message
    may be made again, later), and an outcome's value."""
    event, at = recorded.event, b"%d" % recorded.at
    if not isinstance(event, CommandSettled):
        return at
    failure = b"" if event.failure is None else msgspec.msgpack.encode(event.failure)
    result = b"" if event.result is None else event.result.data
    return blake2b(at + event.outcome.encode() + result + failure, digest_size=8).digest()


def _apply(state: RunState, recorded: Recorded) -> None:  # noqa: C901, PLR0912 - one branch per event of a closed union
    event = recorded.event
    match event:
        case TurnCommitted():
            _apply_turn(state, recorded.seq, event)
            return
        case Started():
            state.run_id, state.started, state.started_at = event.run_id, event, recorded.at
            state.build, state.attributes, state.wake = event.build, event.options.attributes, True
            state.timed_from[0] = recorded.at
            state.senders = {known.sender: known.number for known in event.senders}
        case CommandSettled():
            if not _apply_settled(state, event):
                return
        case SignalReceived():
            state.senders[event.sender] = max(event.number, state.senders.pop(event.sender, 0))
            state.signals[recorded.seq], state.wake = recorded, True
        case UpdateReceived():
            state.updates[event.update_id], state.wake = event.reply_topic, True
            state.update_ids.add(event.update_id)
        case CancelRequested():
            state.canceled, state.wake = event, True
        case Rewound():
            state.generation, state.rewound_seq, state.wake = event.generation, recorded.seq, True
            state.timed_from[event.generation] = recorded.at
            state.ended, state.stuck, state.stuck_count = None, None, 0
            kept = {} if event.position else state.edits  # a reset does it all anew
            state.edits = {**kept, **{edit.position: edit for edit in event.edits}}
        case Paused():
            state.paused = True
        case Unpaused():
            state.paused = False
        case Stuck():
            state.stuck, state.stuck_seq = event, recorded.seq
            state.stuck_count += 1
        case RunMoved():
            state.build, state.stuck, state.stuck_count, state.wake = event.build, None, 0, True
        case RunEnded():
            state.ended, state.ended_seq = event, recorded.seq
            state.ended_at = state.ended_at if event.final else recorded.at
        case _:
            assert_never(event)
    state.unfed.append(recorded)


def _apply_turn(state: RunState, seq: int, turn: TurnCommitted) -> None:
    state.turn, state.turn_seq, state.stuck, state.stuck_count = turn, seq, None, 0
    for command in turn.commands:
        _apply_command(state, command, turn.generation)
    state.unfed = [recorded for recorded in state.unfed if recorded.seq > turn.base]
    settled = [recorded.event for recorded in state.unfed if isinstance(recorded.event, CommandSettled)]
    late: dict[str, Outcome] = {event.command_id: event.outcome for event in settled}
    state.wake = any(_wakes(recorded.event) for recorded in state.unfed)
    state.waits = state.waits.replace(turn.waits_for, late)


def _wakes(event: Event) -> bool:
    if isinstance(event, CommandSettled):
        return event.outcome == "fired"
    return isinstance(event, Started | SignalReceived | UpdateReceived | CancelRequested | Rewound | RunMoved)


def _apply_command(state: RunState, command: Command, generation: int) -> None:
    if command.kind in SUPERVISED:
        adopted = state.orphans.pop(command.id, None)
        attached = adopted is not None and not adopted.failed
        state.commands[command.id] = CommandState(command, adopted.generation if adopted and attached else generation)
    elif command.kind == "cancel":
        target = state.commands.get(command.target)
        if target is not None and target.settled is None:
            target.settled = "canceled"
    elif command.kind == "signal":
        state.unsaid.pop(command.id, None)
    elif command.kind == "attributes":
        state.attributes = command.args
    elif command.kind == "update-result":
        state.updates.pop(command.target, None)
        state.answers[command.target] = command
        if len(state.answers) > ANSWERS_MAX:
            del state.answers[next(iter(state.answers))]


def _apply_settled(state: RunState, event: CommandSettled) -> bool:
    """False: the command is of a dropped turn, so its outcome is not in force until a turn adopts the command."""
    command = state.commands.get(event.command_id)
    if command is None:
        state.orphans[event.command_id] = state.orphans[event.command_id].ended(event)
        return False
    if command.settled is None:
        command.settled = event.outcome
    state.waits.settle(event.command_id, event.outcome)
    state.wake = state.wake or event.outcome == "fired"
    return True
