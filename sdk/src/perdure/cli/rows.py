"""A run's history as rows that people read: when, where in the program, what, and how it went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from perdure.cli.timeline import Cut, brief, call, clock, cut, failure_text, text
from perdure_core.history import effective
from perdure_core.workflow_engine.effects import child_workflow_id
from perdure_core.workflow_engine.lineage import trace
from perdure_schemas.common import Command
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
    SignalReceived,
    Started,
    Stuck,
    TurnCommitted,
    Unpaused,
    UpdateReceived,
)

SILENT_SHOWN_MAX = 10
"""Numbers of events without a row, in one line for people."""

Row = dict[str, Any]
_NONE: Mapping[int, str] = {}
_AGAIN = {"task": "task dispatched again", "child": "child resumed", "timer": "timer set again"}


def rows(history: Sequence[Recorded], dropped: Mapping[int, str] = _NONE, *, shown: Cut = cut) -> list[Row]:
    """One row per event, but one per command of a turn, and one per command that a rewind issued again; JSON-able.

    A row that is no more in force is marked `superseded`. `dropped`: seq of signals, and why they are.
    `shown`: how values are.
    """
    return list(_Told(history, dropped, shown).rows())


def silent(history: Sequence[Recorded]) -> str:
    """Which numbers have no row, and why; empty: all have one."""
    found = [str(r.seq) for r in history if isinstance(r.event, TurnCommitted) and not r.event.commands]
    if not found:
        return ""
    shown = ", ".join(found[:SILENT_SHOWN_MAX]) + (", …" if len(found) > SILENT_SHOWN_MAX else "")
    return f"no row: {shown}, where the code ran and issued nothing"


class _Told:
    """What is known of the run when a row is told."""

    def __init__(self, history: Sequence[Recorded], dropped: Mapping[int, str], shown: Cut) -> None:
        self._history = history
        self._dropped = dropped
        self._shown = shown
        self._in_force = {recorded.seq for recorded in effective(history)}
        self._commands: dict[str, Command] = {}
        self._edits: dict[str, Edit] = {}

    def rows(self) -> Iterator[Row]:
        for index, recorded in enumerate(self._history):
            event = recorded.event
            if isinstance(event, TurnCommitted):
                self._commands.update((command.id, command) for command in event.commands)
                for command in event.commands:
                    told = _command(command, self._commands, self._edits.get(command.position), self._shown)
                    yield {**self._row(recorded, command.position, *told), "id": command.id}
                continue
            yield self._of_event(recorded)
            if isinstance(event, Rewound):
                kept = {} if event.position else self._edits
                self._edits = {**kept, **{edit.position: edit for edit in event.edits}}
                yield from self._again(index)

    def _of_event(self, recorded: Recorded) -> Row:
        event = recorded.event
        command = self._commands.get(event.command_id) if isinstance(event, CommandSettled) else None
        what, detail = _told(event, self._commands, self._shown)
        if recorded.seq in self._dropped:
            what, detail = "signal dropped", f"{detail}   {self._dropped[recorded.seq]}"
        return self._row(recorded, "" if command is None else command.position, what, detail)

    def _again(self, index: int) -> Iterator[Row]:
        """What the rewind issues again: no event tells, since the commands are the old ones."""
        rewound, before = self._history[index], self._history[: index + 1]
        together = [r.event for r in self._history[index + 1 :] if r.cause == rewound.cause]
        answered = {event.command_id for event in together if isinstance(event, CommandSettled)}
        turns = [r.event for r in effective(before) if isinstance(r.event, TurnCommitted)]
        undone = trace(before).undone - answered
        for command in (each for turn in turns for each in turn.commands if each.id in undone):
            _, detail = _command(command, self._commands, self._edits.get(command.position), self._shown)
            yield {**self._row(rewound, command.position, _AGAIN[command.kind], detail), "id": command.id}

    def _row(self, recorded: Recorded, position: str, what: str, detail: str) -> Row:
        superseded = recorded.seq not in self._in_force and not isinstance(recorded.event, Rewound)
        row = {"seq": recorded.seq, "at": recorded.at, "position": position, "event": what, "detail": detail}
        return {**row, "superseded": True} if superseded else row


def _command(command: Command, commands: Mapping[str, Command], edit: Edit | None, shown: Cut) -> tuple[str, str]:
    match command.kind:
        case "task":
            return "task dispatched", _given(command, edit, shown)
        case "child":
            return "child started", f"{_given(command, edit, shown)} as {child_workflow_id(command)}"
        case "timer":
            return "timer set", f"due {clock(command.due_at)}"
        case "signal":
            return "signal sent", f"{command.name} to {command.target}: {shown(text(command.args))}"
        case "inline":
            return "value recorded", f"{command.name} = {brief(command.args, shown)}{failure_text(command.failure)}"
        case "cancel":
            return "cancel asked", _target(command, commands)
        case "attributes":
            return "attributes set", brief(command.args, shown)
        case "update-result":
            return "update answered", brief(command.args, shown) or failure_text(command.failure)
        case _:
            assert_never(command.kind)


def _given(command: Command, edit: Edit | None, shown: Cut) -> str:
    """The call, with the arguments that it was given: the code's own, or those of a person."""
    if edit is None or edit.args is None:
        return f"{command.name}{call(command.args, shown)}"
    return f"{command.name}{call(edit.args, shown)}   edited, the code gives {call(command.args, shown)}"


def _target(command: Command, commands: Mapping[str, Command]) -> str:
    target = commands.get(command.target)
    return f"{target.name or target.kind} at {target.position}" if target is not None else command.target


def _told(event: Event, commands: Mapping[str, Command], shown: Cut) -> tuple[str, str]:
    match event:
        case Started():
            return "started", f"{event.name}{call(event.args, shown)}"
        case CommandSettled():
            return _settled(event, commands.get(event.command_id), shown)
        case RunEnded(final=True):
            return "closed", "for good: what was open is canceled"
        case RunEnded():
            return event.status, _ended(event, commands, shown)
        case Stuck():
            return "stuck", f"{event.kind}: {failure_text(event.failure)}"
        case SignalReceived():
            return "signal received", f"{event.channel}: {shown(text(event.payload))}"
        case UpdateReceived():
            return "update received", f"{event.name}{call(event.args, shown)}"
        case TurnCommitted():
            return "turn", f"{len(event.commands)} commands"
        case _:
            return _asked(event, shown)


def _ended(event: RunEnded, commands: Mapping[str, Command], shown: Cut) -> str:
    """What failed the run is told once, where it happened."""
    id = "" if event.completion is None else event.completion.command_id
    command = commands.get(id)
    if command is not None and event.failure is not None:
        return f"{event.failure.name}: {command.kind} {command.name} at {command.position}"
    return brief(event.result, shown) or failure_text(event.failure)


def _edits(edits: Sequence[Edit], shown: Cut) -> str:
    """What a person corrected."""
    each = [
        f"edit {edit.position}: {call(edit.args, shown)}"
        if edit.args is not None
        else f"skip {edit.position}: {shown(text(edit.result))}"
        for edit in edits
    ]
    return f"   {', '.join(each)}" if each else ""


def _asked(event: CancelRequested | Paused | Unpaused | Rewound | RunMoved, shown: Cut) -> tuple[str, str]:
    """What a person did to the run."""
    by = " ".join(
        part
        for part in (f"by {event.actor}" if event.actor else "", f"({event.reason})" if event.reason else "")
        if part
    )
    match event:
        case Rewound():
            to = f"to event {event.to_seq}, generation {event.generation} {by}".rstrip()
            return "rewound", f"{to}{_edits(event.edits, shown)}"
        case RunMoved():
            return "moved", f"to build {event.build or 'any'} {by}".rstrip()
        case CancelRequested():
            return "cancel requested", by
        case Paused():
            return "paused", by
        case Unpaused():
            return "unpaused", by
        case _:
            assert_never(event)


def _settled(event: CommandSettled, command: Command | None, shown: Cut) -> tuple[str, str]:
    name = command.name or command.kind if command else event.command_id
    attempts = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    what = failure_text(event.failure) if event.failure else brief(event.result, shown)
    arrow = f" → {what}" if what else ""
    given = "   given by a person" if event.outcome == "skipped" else ""
    kind = command.kind if command else "command"
    return f"{kind} {event.outcome}", f"{name}{attempts}{arrow}{given}"
