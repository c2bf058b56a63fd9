"""How long the work of a killed process lies still, before anybody starts the process again."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from perdure import Client
from tests.chaos.app import RETENTION_S
from tests.chaos.audit import Mark, marks_of
from tests.chaos.processes import Member
from tests.chaos.stack import Stack

RUNS = 20
STEPS = 25
_STEPS_AFTER = 3
"""What was under way may still end without the dead; three more steps need whoever has taken over."""
_GIVE_UP_S = 180.0
"""Far above what is allowed: on a slow machine the figure is told, not a crash."""
_HOLD_S = 200.0
_LOOK_EVERY_S = 0.02

Marks = dict[str, list[Mark]]
"""By workflow id."""


async def measure_recovery(client: Client, stack: Stack, tell: Callable[[str], None]) -> dict[str, float]:
    """Seconds, by the role of the process that was killed."""
    found = {"worker": await _of_worker(client, stack)}
    for role in ("workflow_engine", "task_engine"):
        found[role] = await _of_engine(client, stack.members[f"{role}-0"], stack.effects)
    tell(f"recovery: {', '.join(f'{role} {seconds:.1f} s' for role, seconds in found.items())}")
    return found


async def _of_worker(client: Client, stack: Stack) -> float:
    """Until another worker runs the task that one was killed at."""
    handle = await client.start("holding", _HOLD_S, id="recovery-worker", retention=RETENTION_S)
    marks = await _marks(stack.effects, lambda marks: len(marks[handle.id]) >= 1)
    pid = marks[handle.id][0].pid
    member = next(member for member in stack.members.values() if member.pid == pid)
    killed = _kill(member)
    marks = await _marks(stack.effects, lambda marks: len(marks[handle.id]) >= 2)
    member.start()
    assert await handle.result() == 2
    return (marks[handle.id][1].at - killed) / 1000


async def _of_engine(client: Client, member: Member, effects: Path) -> float:
    """Until the last of many runs goes on."""
    handles = await asyncio.gather(
        *(
            client.start("stroll", STEPS, id=f"recovery-{member.name}-{number}", retention=RETENTION_S)
            for number in range(RUNS)
        )
    )
    await _marks(effects, lambda marks: all(marks[handle.id] for handle in handles))
    killed = _kill(member)

    def third_after(marks: Marks, run: str) -> int:
        return next(iter([mark.at for mark in marks[run] if mark.at > killed][_STEPS_AFTER - 1 :]), 0)

    def through(marks: Marks, run: str) -> bool:
        """It has gone on, or has come to its end: on a slow machine the first ends while the last is started."""
        return third_after(marks, run) > 0 or len({mark.task_id for mark in marks[run]}) >= STEPS

    marks = await _marks(effects, lambda marks: all(through(marks, handle.id) for handle in handles))
    member.start()
    assert [await handle.result() for handle in handles] == [STEPS] * RUNS
    went_on = [at for handle in handles if (at := third_after(marks, handle.id))]
    assert went_on, "no run was under way when it was killed"
    return (max(went_on) - killed) / 1000


def _kill(member: Member) -> int:
    member.kill()
    return time.time_ns() // 1_000_000


async def _marks(effects: Path, enough: Callable[[Marks], bool]) -> Marks:
    """Wait until the executions of tasks so far are enough."""
    async with asyncio.timeout(_GIVE_UP_S):
        while True:
            marks: Marks = defaultdict(list)
            for mark in marks_of(effects.read_text()):
                marks[mark.workflow_id].append(mark)
            if enough(marks):
                return marks
            await asyncio.sleep(_LOOK_EVERY_S)
