"""A run driven by hand, closed when its test ends."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure import (
    workflow,
)
from perdure._replay.code import Turn
from perdure._replay.instance import Instance
from perdure_schemas.common import Failure
from perdure_schemas.events import Recorded, TurnCommitted
from tests.sdk.replay import world

live_runs: list[Instance] = []


def instance_of(code: Any, *, generation: int = 0) -> Instance:
    live_runs.append(world.instance_of(code, generation=generation))
    return live_runs[-1]


class Live:
    """A run driven by hand."""

    def __init__(self, code: Any) -> None:
        self.run = instance_of(code)
        self.history: list[Recorded] = []
        self.last = Turn()

    def feed(self, event: Any) -> Turn:
        self.history.append(world.recorded(len(self.history) + 1, event))
        turn = self.run.turn(self.history[-1:], base=len(self.history), generation=0)
        self.history.append(world.committed(turn, len(self.history)))
        self.last = turn
        return turn

    def begin(self) -> Turn:
        return self.feed(world.started())

    def complete(self, position: str, value: Any = 0) -> Turn:
        return self.feed(world.settled(self.id_at(position), "completed", world.json(value)))

    def fail(self, position: str, message: str) -> Turn:
        failure = Failure(name="KeyError", message=message)
        return self.feed(world.settled(self.id_at(position), "failed", failure=failure))

    def id_at(self, position: str) -> str:
        turns = [r.event for r in self.history if isinstance(r.event, TurnCommitted)]
        (id,) = (command.id for turn in turns for command in turn.commands if command.position == position)
        return id

    def query(self, name: str) -> Any:
        payload = self.run.query(name, world.json([]))
        return None if payload.encoding == "null" else msgspec.json.decode(payload.data)


def stopped(fn: Any) -> str:
    """What stops a run whose first turn does that; its message."""
    live = Live(workflow(fn))
    turn = live.begin()
    assert turn.stoppage is not None
    return f"{turn.stoppage.failure.name}: {turn.stoppage.failure.message}"
