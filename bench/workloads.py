"""What is measured. HELLO is the smallest run that does anything: one task, awaited."""

from __future__ import annotations

import os
import time
from pathlib import Path

from perdure import Channel, all_of, sleep, task, workflow


@task
async def plus_one(number: int) -> int:
    return number + 1


@workflow
async def hello(number: int) -> int:
    return await plus_one(number)


@workflow
async def sequence(length: int) -> int:
    number = 0
    for _ in range(length):
        number = await plus_one(number)
    return number


@workflow
async def fan(width: int) -> int:
    return sum(await all_of(*[plus_one(number) for number in range(width)]))


@task
def interrupted(marker: str) -> int:
    """Its first execution tells its process id and hangs; the next answers with its own."""
    path = Path(marker)
    if path.exists():
        return os.getpid()
    partial = path.with_suffix(".part")
    partial.write_text(str(os.getpid()))
    partial.replace(path)
    time.sleep(3600)
    return 0


@workflow
async def recovery(marker: str) -> int:
    return await interrupted(marker)


@workflow
class Counter:
    """Counts signals."""

    ticks: Channel[int] = Channel()

    async def run(self, signals: int) -> int:
        total = 0
        for _ in range(signals):
            total += await self.ticks.receive()
        return total


@workflow
async def sleeper(seconds: float) -> None:
    await sleep(seconds)
