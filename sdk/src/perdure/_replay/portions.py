"""A turn that issues more than one message can bear is answered in portions, each a turn of its own.

In replay nothing differs: a position finds its command in whichever turn recorded it.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.convert import INLINE_BYTES_MAX, OFFLOAD_ABOVE_BYTES
from perdure_schemas.common import Command, Completion, Failure, Payload, WaitGroup, WaitsFor

PORTION_BYTES_MAX = 400_000
"""Of commands in one turn: with the ids of 10,000 commands waited for, 340 kB, it stays under the 1 MB of a message."""
_COMMAND_BYTES = 250
"""A command without its data."""

AT_ONCE = WaitsFor([WaitGroup("all", [])])
"""All of nothing has ended: the engine asks for the next turn, and gets the next portion."""


def portion(commands: list[Command]) -> tuple[list[Command], list[Command]]:
    """The first portion, of at least one command, and the rest."""
    size = 0
    for index, command in enumerate(commands):
        size += _size(command)
        if size > PORTION_BYTES_MAX and index:
            return commands[:index], commands[index:]
    return commands, []


def fits(commands: Sequence[Command], completion: Completion) -> bool:
    """Whether the end may go with them."""
    next_run = completion.next_run
    data = _bytes(completion.result) + _said(completion.failure) + (0 if next_run is None else _bytes(next_run.args))
    return not commands or data + sum(map(_size, commands)) <= PORTION_BYTES_MAX


def _size(command: Command) -> int:
    return _COMMAND_BYTES + _bytes(command.args) + _said(command.failure)


def _bytes(payload: Payload | None) -> int:
    """What it takes in a message at most: of what cannot be in one, it has a reference. Whether it has one of what is
    less than that, but large, is not known here."""
    size = 0 if payload is None else len(payload.data)
    return size if size <= INLINE_BYTES_MAX else OFFLOAD_ABOVE_BYTES


def _said(failure: Failure | None) -> int:
    return 0 if failure is None else len(failure.message) + len(failure.stack)
