"""What rewinds did to commands: which were dropped and may be adopted, which are tried again, since when.

One pass over the whole history, dropped turns included. A command's *generation* is the number of rewinds
before it was last dispatched; a failure reported for an older one is no news (protocol rule 31).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas.common import Command
from perdure_schemas.events import CommandSettled, Recorded, Rewound, RunEnded, TurnCommitted

SUPERVISED = frozenset({"task", "child", "timer"})
"""Kinds of commands that have an outcome of their own later; all others are done when recorded."""


@dataclass(slots=True, frozen=True)
class Orphan:
    """A command of a dropped turn: the code may issue it again and get its old id and its success, if any."""

    command: Command
    settled: CommandSettled | None
    generation: int
    failed: bool
    """Its last attempt failed: adopted, it is dispatched again."""

    @property
    def under_way(self) -> bool:
        """It goes on somewhere: adopted, it is not dispatched again."""
        return self.settled is None and not self.failed

    def ended(self, event: CommandSettled) -> Orphan:
        """After an outcome that came while the command is in no turn."""
        if event.outcome in COMPLETED:
            return replace(self, settled=event)
        return replace(self, failed=True)


@dataclass(slots=True)
class _Trace:
    command: Command
    turn_seq: int
    generation: int
    success: CommandSettled | None = None
    success_seq: int = 0
    failed_seq: int = 0
    over: bool = False
    """Its own outcome was recorded since it was dispatched last: one that a person gave leaves it at work."""

    def orphan(self) -> Orphan:
        return Orphan(self.command, self.success, self.generation, self.failed_seq > 0)


@dataclass(slots=True)
class Lineage:
    """By command id."""

    traces: dict[str, _Trace] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    """Commands still in force whose failure the last rewind dropped."""
    reset: set[str] = field(default_factory=set)
    """Commands that a reset asked to do anew: never adopted."""
    closed_seq: int = 0
    """Of the end that closed the run, until a rewind undoes it; 0: none did."""
    abandoned: dict[int, list[Orphan]] = field(default_factory=dict)
    """Those of them that may go on somewhere, by the generation of that reset: also what the end of the run, or a turn,
    had canceled. The reset undid that, and then it may never have been published."""

    def generation(self, command_id: str) -> int:
        return self.traces[command_id].generation

    def orphans(self, in_force: set[str]) -> dict[str, Orphan]:
        return {
            command_id: trace.orphan()
            for command_id, trace in self.traces.items()
            if command_id not in in_force and command_id not in self.reset
        }

    def dropped_children(self, in_force: set[str]) -> dict[str, str]:
        """The ids that their author gave to children which are no more in force."""
        dropped = (trace.command for command_id, trace in self.traces.items() if command_id not in in_force)
        return {command.id: command.child_id for command in dropped if command.child_id}


def trace(history: Sequence[Recorded]) -> Lineage:
    """The lineage of every supervised command of a history."""
    lineage = Lineage()
    for recorded in history:
        event = recorded.event
        if isinstance(event, TurnCommitted):
            for command in event.commands:
                if command.kind in SUPERVISED:
                    _issued(lineage, command, recorded.seq, event.generation)
                elif command.kind == "cancel":
                    _canceled(lineage, command.target, recorded.seq)
        elif isinstance(event, CommandSettled):
            _settled(lineage, event, recorded.seq)
        elif isinstance(event, Rewound):
            _rewound(lineage, history, event, recorded.seq)
        elif isinstance(event, RunEnded) and not event.resumable:
            lineage.closed_seq = recorded.seq
    return lineage


def sent_signals(history: Sequence[Recorded]) -> dict[str, Command]:
    """The signals that these turns sent, by command id."""
    turns = [recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted)]
    return {command.id: command for turn in turns for command in turn.commands if command.kind == "signal"}


def _issued(lineage: Lineage, command: Command, seq: int, generation: int) -> None:
    known = lineage.traces.get(command.id)
    if known is None:
        lineage.traces[command.id] = _Trace(command, seq, generation)
        return
    known.turn_seq = seq
    if known.failed_seq:
        known.generation, known.failed_seq, known.over = generation, 0, False


def _canceled(lineage: Lineage, command_id: str, seq: int) -> None:
    """By the workflow itself: gone back to before that, the work is to be done after all."""
    known = lineage.traces.get(command_id)
    if known is not None and known.success is None:
        known.failed_seq = seq


def _settled(lineage: Lineage, event: CommandSettled, seq: int) -> None:
    known = lineage.traces.get(event.command_id)
    if known is None:
        return
    known.over = event.outcome != "skipped"
    if event.outcome in COMPLETED:
        known.success, known.success_seq = event, seq
    else:
        known.failed_seq = seq


def _reopened(lineage: Lineage) -> None:
    """The end of the run canceled what was open: gone back to before it, that is to be done after all."""
    for known in lineage.traces.values():
        if known.success is None and not known.failed_seq:
            known.failed_seq = lineage.closed_seq
    lineage.closed_seq = 0


def _rewound(lineage: Lineage, history: Sequence[Recorded], event: Rewound, seq: int) -> None:
    _reopened(lineage)
    lineage.undone = set()
    _take_back(lineage, event.taken_back)
    for command_id, known in lineage.traces.items():
        if known.turn_seq <= event.to_seq < known.failed_seq:
            known.generation, known.failed_seq, known.over = event.generation, 0, False
            lineage.undone.add(command_id)
    if event.position:
        targets = from_position(history[event.to_seq : seq - 1], event.position) - lineage.reset
        lineage.reset |= targets
        known_targets = [lineage.traces[id] for id in sorted(targets) if id in lineage.traces]
        lineage.abandoned[event.generation] = [known.orphan() for known in known_targets if not known.over]


def _take_back(lineage: Lineage, command_ids: Sequence[str]) -> None:
    """A result that a person gave by skip, and corrects, counts as a failure."""
    for command_id in command_ids:
        known = lineage.traces.get(command_id)
        if known is not None and known.success is not None and known.success.outcome == "skipped":
            known.success, known.failed_seq = None, known.success_seq


def from_position(dropped: Sequence[Recorded], position: str) -> set[str]:
    """Ids of the commands that a reset to the position does anew. `dropped`: the history that it undoes."""
    targets: set[str] = set()
    found = False
    for recorded in dropped:
        if isinstance(recorded.event, TurnCommitted):
            for command in recorded.event.commands:
                found = found or command.position == position
                if found:
                    targets.add(command.id)
    return targets
