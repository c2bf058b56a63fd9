"""A run's history as rows that people read: when, where in the program, what, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

import msgspec

from perdure_core.workflow_engine.effects import child_workflow_id
from perdure_schemas.common import Command, Failure, Payload
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
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

VALUE_CHARS_MAX = 60
"""Of a value in a table: enough to recognise it; `-o json` has it whole."""


def value_of(payload: Payload | None) -> Any:
    """What a payload says: its JSON value, or a description where it is none."""
    if payload is None or payload.encoding == "null":
        return None
    if payload.encoding != "json":
        return f"({len(payload.data)} bytes, {payload.encoding})"
    return msgspec.json.decode(payload.data)


def brief(payload: Payload | None) -> str:
    """A value, cut; nothing for none."""
    return _cut(_text(payload)) if payload is not None and payload.encoding != "null" else ""


def _text(payload: Payload | None) -> str:
    return msgspec.json.encode(value_of(payload)).decode()


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def clock(at_ms: int | None, now_ms: int | None = None) -> str:
    """Local time: with the date, to the millisecond; or, given the present, what a glance needs."""
    if at_ms is None:
        return ""
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    if now_ms is None:
        return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    today = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M")


def took(duration_ms: int) -> str:
    """In the two largest units that matter."""
    seconds = max(0, duration_ms) / 1000
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def failure_text(failure: Failure | None) -> str:
    """With its causes, one a line; without stacks."""
    lines = []
    while failure is not None:
        lines.append(f"{failure.name}: {failure.message}".strip().removesuffix(":"))
        failure = failure.cause
    return "\n  caused by ".join(lines)


def stacks(failure: Failure | None) -> str:
    """The tracebacks of a failure and its causes, the root last."""
    parts = []
    while failure is not None:
        parts.append(f"{failure.stack.rstrip()}\n{failure.name}: {failure.message}".lstrip("\n"))
        failure = failure.cause
    return "\n\ncaused by\n\n".join(parts)


def rows(history: Sequence[Recorded]) -> list[dict[str, Any]]:
    """One row per event, but one per command of a turn; JSON-able."""
    commands: dict[str, Command] = {}
    found = []
    for recorded in history:
        event = recorded.event
        if isinstance(event, TurnCommitted):
            commands.update((command.id, command) for command in event.commands)
            found += [
                {**_row(recorded, command.position, *_command(command, commands)), "id": command.id}
                for command in event.commands
            ]
        else:
            position = commands[event.command_id].position if _settles_known(event, commands) else ""  # type: ignore[union-attr]
            found.append(_row(recorded, position, *_told(event, commands)))
    return found


def _settles_known(event: Event, commands: Mapping[str, Command]) -> bool:
    return isinstance(event, CommandSettled) and event.command_id in commands


def _row(recorded: Recorded, position: str, what: str, detail: str) -> dict[str, Any]:
    return {"seq": recorded.seq, "at": recorded.at, "position": position, "event": what, "detail": detail}


def _command(command: Command, commands: Mapping[str, Command]) -> tuple[str, str]:
    match command.kind:
        case "task":
            return "task dispatched", f"{command.name}{_call(command.args)}"
        case "child":
            return "child started", f"{command.name}{_call(command.args)} as {child_workflow_id(command)}"
        case "timer":
            return "timer set", f"due {clock(command.due_at)}"
        case "signal":
            return "signal sent", f"{command.name} to {command.target}: {_cut(_text(command.args))}"
        case "inline":
            return "value recorded", f"{command.name} = {brief(command.args)}{failure_text(command.failure)}"
        case "cancel":
            return "cancel asked", _target(command, commands)
        case "attributes":
            return "attributes set", brief(command.args)
        case "update-result":
            return "update answered", brief(command.args) or failure_text(command.failure)
        case _:
            assert_never(command.kind)


def _target(command: Command, commands: Mapping[str, Command]) -> str:
    target = commands.get(command.target)
    return f"{target.name or target.kind} at {target.position}" if target is not None else command.target


def _call(args: Payload | None) -> str:
    """The arguments in parentheses, without the brackets of their array."""
    return f"({_cut(_text(args).removeprefix('[').removesuffix(']'))})" if args is not None else "()"


def _told(event: Event, commands: Mapping[str, Command]) -> tuple[str, str]:
    match event:
        case Started():
            return "started", f"{event.name}{_call(event.args)}"
        case CommandSettled():
            return _settled(event, commands.get(event.command_id))
        case RunEnded(final=True):
            return "closed", "for good: what was open is canceled"
        case RunEnded():
            return event.status, brief(event.result) or failure_text(event.failure)
        case Stuck():
            return "stuck", f"{event.kind}: {failure_text(event.failure)}"
        case SignalReceived():
            return "signal received", f"{event.channel}: {_cut(_text(event.payload))}"
        case UpdateReceived():
            return "update received", f"{event.name}{_call(event.args)}"
        case TurnCommitted():
            return "turn", f"{len(event.commands)} commands"
        case _:
            return _asked(event)


def _asked(event: CancelRequested | Paused | Unpaused | Rewound | RunMoved) -> tuple[str, str]:
    """What a person did to the run."""
    by = " ".join(
        part
        for part in (f"by {event.actor}" if event.actor else "", f"({event.reason})" if event.reason else "")
        if part
    )
    match event:
        case Rewound():
            return "rewound", f"to event {event.to_seq}, generation {event.generation} {by}".rstrip()
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


def _settled(event: CommandSettled, command: Command | None) -> tuple[str, str]:
    name = command.name or command.kind if command else event.command_id
    attempts = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    what = failure_text(event.failure) if event.failure else brief(event.result)
    arrow = f" → {what}" if what else ""
    kind = command.kind if command else "command"
    return f"{kind} {event.outcome}", f"{name}{attempts}{arrow}"
