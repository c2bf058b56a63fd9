"""What a history says, reduced to what the auditor compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from perdure_schemas.events import CommandSettled, Recorded, RunEnded, TurnCommitted


@dataclass
class RunFacts:
    tasks: set[str] = field(default_factory=set)
    """Ids of the tasks that committed turns asked for."""
    settled: dict[str, int] = field(default_factory=dict)
    """By command id: the seq of the event that recorded its outcome."""
    ended_at: int = 0
    """Epoch milliseconds."""
    faults: list[str] = field(default_factory=list)
    """What no history may say."""


def facts_of(events: Sequence[Recorded]) -> RunFacts:
    facts = RunFacts()
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        facts.faults.append("its events are not one chain")
    ends = [event.seq for event in events if isinstance(event.event, RunEnded)]
    if len(ends) != 1 or ends[0] != len(events):
        facts.faults.append(f"it ended at {ends} of {len(events)} events")
    settled: Counter[str] = Counter()
    for recorded in events:
        match recorded.event:
            case TurnCommitted(commands=commands):
                facts.tasks |= {command.id for command in commands if command.kind == "task"}
            case RunEnded():
                facts.ended_at = recorded.at
            case CommandSettled(command_id=command_id):
                settled[command_id] += 1
                facts.settled[command_id] = recorded.seq
            case _:
                pass
    facts.faults += [f"command {command_id} was settled {n} times" for command_id, n in settled.items() if n > 1]
    if any(later.at < earlier.at for earlier, later in pairwise(events)):
        facts.faults.append("its time went backwards")
    return facts
