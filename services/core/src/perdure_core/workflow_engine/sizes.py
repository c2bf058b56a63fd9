"""How many bytes things take in a message, of which it may have 1 MB."""

from __future__ import annotations

from perdure_schemas.common import Command, Failure, Payload
from perdure_schemas.events import CommandSettled, Event, SignalReceived, Started, Stuck, UpdateReceived

SENT_BYTES_MAX = 1_000_000
"""Of data in one message. The rest, up to 1,048,576 bytes, is for what the message says beside it: ids, options, and
that it may travel inside of another message, as the task in its time-out's timer does."""
_EVENT_BYTES = 150
"""An event without its data, its hash included."""
_COMMAND_BYTES = 500
"""A command without its data, its options included."""


def event_bytes(event: Event) -> int:
    match event:
        case CommandSettled():
            return _EVENT_BYTES + payload_bytes(event.result) + failure_bytes(event.failure)
        case SignalReceived():
            return _EVENT_BYTES + payload_bytes(event.payload)
        case UpdateReceived() | Started():
            return _EVENT_BYTES + payload_bytes(event.args)
        case Stuck():
            return _EVENT_BYTES + failure_bytes(event.failure)
        case _:
            return _EVENT_BYTES


def command_bytes(command: Command) -> int:
    return _COMMAND_BYTES + payload_bytes(command.args) + failure_bytes(command.failure)


def payload_bytes(payload: Payload | None) -> int:
    return 0 if payload is None else len(payload.data)


def failure_bytes(failure: Failure | None) -> int:
    """With its details and all its causes."""
    size = 0
    while failure is not None:
        size += len(failure.name.encode()) + len(failure.message.encode()) + len(failure.stack.encode())
        size += payload_bytes(failure.details)
        failure = failure.cause
    return size
