"""`python -m tests.chaos.broken MODULE MUTATION…`: a service with defects, which the auditor must see from outside."""

from __future__ import annotations

import asyncio
import importlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure_core.workflow_engine.decisions import Decision, Record
from perdure_runtime import workflow_slow
from perdure_runtime.adapters.cassandra import listed_runs
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Delivery
from perdure_runtime.projector import Projector
from perdure_runtime.workflow_driver import Rounds
from perdure_schemas.messages import RunChanged

_PAUSE_S = 0.3
"""Wide enough for a kill to hit: what is between two steps otherwise takes a millisecond."""
_FAST_MS = 5_000
"""More than any nap, less than retention: each nap ends as soon as the machine can, and a long one too early."""


def acknowledge_first() -> None:
    """Messages are acknowledged before what they caused is published."""
    publish = Rounds._publish

    async def late(self: Rounds, actors: Any, this: Any) -> None:
        await self._intake.ack(this.acks)
        await asyncio.sleep(_PAUSE_S)
        await publish(self, actors, this)

    Rounds._publish = late  # type: ignore[method-assign]


def pause_before_publishing() -> None:
    """No defect: slow, and so hit between commit and publish by most kills."""
    publish = Rounds._publish

    async def slow(self: Rounds, actors: Any, this: Any) -> None:
        await asyncio.sleep(_PAUSE_S)
        await publish(self, actors, this)

    Rounds._publish = slow  # type: ignore[method-assign]


def forget_effects() -> None:
    """A message that was recorded before is acknowledged without publishing its effects again."""

    async def nothing(*_: Any) -> list[Any]:
        return []

    pause_before_publishing()
    for name in ("reemit", "reemit_termination"):
        setattr(workflow_slow, name, nothing)


def record_signals_twice() -> None:
    """Each signal is two events."""
    deciding = importlib.import_module("perdure_core.workflow_engine.decide")
    once = deciding.decide_signal

    def twice(*args: Any) -> Decision:
        decision: Decision = once(*args)
        if isinstance(decision, Record):
            return msgspec.structs.replace(decision, events=[*decision.events, *decision.events])
        return decision

    vars(deciding)["decide_signal"] = twice


def fire_early() -> None:
    """The clock of the timer service is fast."""
    right = SystemClock.now
    SystemClock.now = lambda self: right(self) + _FAST_MS  # type: ignore[method-assign]


def skip_changes() -> None:
    """The projector leaves out the ends of some runs."""
    apply = Projector._apply

    def wanted(delivery: Delivery) -> bool:
        body = delivery.message.body
        ended = isinstance(body, RunChanged) and body.status == "completed"
        return not ended or crc32(delivery.message.key.encode()) % 3 > 0

    async def some(self: Projector, batch: Sequence[Delivery]) -> None:
        assert self._intake is not None
        await self._intake.ack([delivery for delivery in batch if not wanted(delivery)])
        await apply(self, [delivery for delivery in batch if wanted(delivery)])

    Projector._apply = some  # type: ignore[method-assign]


def miscount() -> None:
    """A run that changes its status is counted under the new one, and under the old one still."""
    once = listed_runs._count

    def never_less(counts: listed_runs.Counts, known: Any, by: int) -> None:
        once(counts, known, max(by, 0))

    listed_runs._count = never_less


MUTATIONS = {
    "acknowledge-first": ("workflow_engine", acknowledge_first),
    "fire-early": ("timer", fire_early),
    "forget-effects": ("workflow_engine", forget_effects),
    "miscount": ("projector", miscount),
    "pause-before-publishing": ("workflow_engine", pause_before_publishing),
    "record-signals-twice": ("workflow_engine", record_signals_twice),
    "skip-changes": ("projector", skip_changes),
}


def role_of(mutation: str) -> str:
    """Whose defect it is."""
    return MUTATIONS[mutation][0]


def main() -> None:
    module, *mutations = sys.argv[1:]
    for mutation in mutations:
        MUTATIONS[mutation][1]()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
