"""Which recorded events are in force.

History is append-only: a rewind does not remove what it undoes, it appends `Rewound(to_seq)`, which puts a
part of the past out of force. Engine and worker must agree on that part to the event, so both ask here.

An event is *in the region* of a Rewound when it lies after `to_seq` and before the Rewound itself. Regions
of several Rewounds may nest and overlap; each one counts. In a region

- `TurnCommitted`, `Stuck` and `RunEnded` are out of force;
- a `CommandSettled` stays if its command did not fail, or the workflow itself canceled it;
- everything else stays: signals, updates, cancels, pauses, moves and the Rewounds themselves.

And everywhere a `CommandSettled` counts only if a turn in force *before* it issued its command, and only the
first one does. (An outcome of a dropped turn's command is recorded again once a new turn has adopted it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure_schemas.common import Outcome
from perdure_schemas.events import CommandSettled, Recorded, Rewound, RunEnded, Stuck, TurnCommitted

KEPT_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"completed", "skipped", "fired"})
"""Outcomes a rewind keeps. The others are what people rewind for: the command is tried again."""


def effective(records: Sequence[Recorded]) -> list[Recorded]:
    """The records in force, in order. O(n), whatever the number of rewinds.

    `records` is one run's history, by seq, from its first event on.
    """
    kept: list[Recorded] = []
    open_commands: set[str] = set()
    canceled: set[str] = set()
    for record, barrier in zip(records, _barriers(records), strict=True):
        in_region = record.seq > barrier
        match record.event:
            case TurnCommitted(commands=commands):
                if in_region:
                    continue
                for command in commands:
                    if command.kind == "cancel":
                        canceled.add(command.target)
                    else:
                        open_commands.add(command.id)
            case Stuck() | RunEnded():
                if in_region:
                    continue
            case CommandSettled(command_id=id, outcome=outcome):
                undone = in_region and outcome not in KEPT_OUTCOMES and id not in canceled
                if undone or id not in open_commands:
                    continue
                open_commands.remove(id)
            case _:
                pass
        kept.append(record)
    return kept


def _barriers(records: Sequence[Recorded]) -> list[int]:
    """For each record the lowest `to_seq` of the Rewounds after it: in a region are those above it."""
    barriers = [0] * len(records)
    lowest = records[-1].seq if records else 0
    for index in range(len(records) - 1, -1, -1):
        barriers[index] = lowest
        event = records[index].event
        if isinstance(event, Rewound):
            lowest = min(lowest, event.to_seq)
    return barriers
