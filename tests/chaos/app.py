"""What runs under faults. Each execution of a task leaves a line in a file that the auditor reads."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from perdure import Channel, Retry, all_of, current_task, now, sleep, task, workflow

RETENTION_S = 60.0
"""Longer than any outage here lasts, so that a result can still be read after one. Children do not inherit it."""
_EFFECTS = os.environ.get("CHAOS_EFFECTS", "/dev/null")


def _leave_mark(kind: str) -> None:
    """One write of one line in append mode is whole, whoever else writes."""
    running = current_task()
    run = running.workflow.workflow_id if running.workflow is not None else "-"
    line = f"{kind} {running.id} {running.attempt_id} {run} {time.time_ns() // 1_000_000} {os.getpid()}\n"
    with open(_EFFECTS, "ab", buffering=0) as effects:
        effects.write(line.encode())


@task
async def increment(number: int) -> int:
    _leave_mark("increment")
    return number + 1


@task(retry=Retry(attempts=5, initial=0.2))
async def shaky(number: int) -> int:
    _leave_mark("shaky")
    if current_task().attempt < 3:
        raise ConnectionError("not yet")
    return number + 1


@task
async def hold(seconds: float) -> int:
    """The first execution lasts; one that finds a mark of another ends at once. Returns how many there were."""
    _leave_mark("hold")
    marks = sum(f" {current_task().id} " in line for line in Path(_EFFECTS).read_text().splitlines())
    if marks == 1:
        await asyncio.sleep(seconds)
    return marks


@workflow
async def holding(seconds: float) -> int:
    return await hold(seconds)


@workflow
async def stroll(steps: int) -> int:
    """Every step needs a turn, a task and a timer."""
    number = 0
    for _ in range(steps):
        number = await increment(number)
        await sleep(0.1)
    return number


@workflow
async def hello(number: int) -> int:
    return await increment(number)


@workflow
async def sequence(number: int) -> int:
    for _ in range(10):
        number = await increment(number)
    return number


@workflow
async def fan(width: int) -> int:
    return sum(await all_of(*(increment(number) for number in range(width))))


@workflow
async def retried(number: int) -> int:
    return await shaky(number)


@workflow
async def napping(milliseconds: int) -> int:
    """Its two tasks leave marks before and after: an outsider's clock says how long it slept."""
    await increment(0)
    before = now()
    await sleep(milliseconds / 1000)
    slept = now() - before
    await increment(1)
    return round(slept.total_seconds() * 1000)


@workflow
async def family(children: int) -> int:
    child = hello.options(retention=RETENTION_S)
    return sum(await all_of(*(child(number) for number in range(children))))


@workflow
class Collector:
    values: Channel[int] = Channel()

    async def run(self, count: int) -> list[int]:
        return [await self.values.receive() for _ in range(count)]
