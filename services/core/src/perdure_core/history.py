"""Which recorded events are in force.

History is append-only: a rewind does not remove what it undoes, it appends `Rewound(to_seq)`, which puts a
part of the past out of force. Engine and worker must agree on that part to the event, so both ask here.

An event is *in the region* of a Rewound when it lies after `to_seq` and before the Rewound itself. Regions
of several Rewounds may nest and overlap; each one counts. In a region

- `TurnCommitted`, `Stuck` and `RunEnded` are out of force;
- a `CommandSettled` stays if its command did not fail, or the workflow itself canceled it; but not a result given by
  skip that the Rewound takes back;
- a `CancelRequested` stays, unless the region undoes the very end that the cancel brought about;
- everything else stays: signals, updates, pauses, moves and the Rewounds themselves.

And everywhere a `CommandSettled` counts only if a turn in force *before* it issued its command, and only the
first one does. (An outcome of a dropped turn's command is recorded again once a new turn has adopted it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from perdure_schemas.common import Outcome
from perdure_schemas.events import CancelRequested, CommandSettled, Recorded, Rewound, RunEnded, Stuck, TurnCommitted

KEPT_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"completed", "skipped", "fired"})
"""Outcomes a rewind keeps. The others are what people rewind for: the command is tried again."""


def effective(records: Sequence[Recorded]) -> list[Recorded]:
    """The records in force, in order. O(n), whatever the number of rewinds.

    `records` is one run's history, by seq, from its first event on.
    """
    commands = _Commands()
    taken_back = _taken_back(records)
    last = records[-1].seq if records else 0
    kept: list[Recorded] = []
    for record, barrier, cancel_barrier in zip(records, *_barriers(records, last), strict=True):
        event = record.event
        match event:
            case TurnCommitted() | Stuck() | RunEnded() if record.seq > barrier:
                continue
            case CancelRequested() if record.seq > cancel_barrier:
                continue
            case CommandSettled() if record.seq in taken_back:
                continue
            case CommandSettled() if not commands.settle(event, undone=record.seq > barrier):
                continue
            case TurnCommitted():
                commands.issue(event)
            case _:
                pass
        kept.append(record)
    return kept


@dataclass(slots=True)
class _Commands:
    """Those the turns in force have issued so far."""

    open: set[str] = field(default_factory=set)
    canceled: set[str] = field(default_factory=set)

    def issue(self, turn: TurnCommitted) -> None:
        for command in turn.commands:
            if command.kind == "cancel":
                self.canceled.add(command.target)
            else:
                self.open.add(command.id)

    def settle(self, event: CommandSettled, *, undone: bool) -> bool:
        """Whether the outcome counts. `undone`: it lies in a region."""
        id = event.command_id
        if id not in self.open or (undone and event.outcome not in KEPT_OUTCOMES and id not in self.canceled):
            return False
        self.open.remove(id)
        return True


def _barriers(records: Sequence[Recorded], last: int) -> tuple[list[int], list[int]]:
    """For each record the lowest `to_seq` of the Rewounds after it: in a region are those above it.

    Then the same of those Rewounds alone that undo a canceled end which comes after the record.
    """
    barriers, cancel_barriers = [last] * len(records), [last] * len(records)
    lowest = cancel_lowest = last
    for index in range(len(records) - 1, -1, -1):
        barriers[index], cancel_barriers[index] = lowest, cancel_lowest
        event = records[index].event
        if isinstance(event, Rewound):
            lowest = min(lowest, event.to_seq)
        elif isinstance(event, RunEnded) and event.status == "canceled" and records[index].seq > lowest:
            cancel_lowest = min(cancel_lowest, lowest)
    return barriers, cancel_barriers


def _taken_back(records: Sequence[Recorded]) -> set[int]:
    """Seqs of the results given by skip that a later Rewound takes back."""
    found: set[int] = set()
    given: dict[str, list[int]] = {}
    for record in records:
        event = record.event
        if isinstance(event, CommandSettled) and event.outcome == "skipped":
            given.setdefault(event.command_id, []).append(record.seq)
        elif isinstance(event, Rewound):
            for command_id in event.taken_back:
                found.update(given.pop(command_id, ()))
    return found
