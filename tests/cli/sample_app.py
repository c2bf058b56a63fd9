"""What the command line is tried on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from perdure import Channel, TaskFailed, WorkflowError, query, task, timer, update, workflow


@task
async def add(left: int, right: int = 1) -> int:
    return left + right


@task
async def parse(text: str) -> int:
    return int(text)


@task
async def hang(marker: str) -> int:
    """Its first execution hangs, the next one answers."""
    path = Path(marker)
    if not path.exists():
        path.write_text(str(os.getpid()))
        await asyncio.sleep(3600)
    return os.getpid()


@workflow
async def plus(left: int, right: int = 1) -> int:
    return await add(left, right)


@workflow
async def parsed(text: str) -> int:
    await add(1)
    return await parse(text)


@workflow
async def interrupted(marker: str) -> int:
    return await hang(marker)


@workflow
async def made_up_for(text: str) -> int:
    try:
        return await parse(text)
    except TaskFailed:
        await add(1)
        raise


@workflow
async def mistaken(n: int) -> int:
    raise ValueError(f"{n} is wrong")


@workflow
async def tidies(then: str) -> str:
    try:
        await timer(3600)
    except asyncio.CancelledError:
        await (timer(3600) if then == "linger" else add(1))
        if then == "fail":
            raise WorkflowError("it cannot be undone") from None
        if then == "end":
            raise
    return then


@workflow
class Votes:
    names: Channel[str] = Channel()

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def run(self, count: int) -> list[str]:
        while len(self.seen) < count:
            self.seen.append(await self.names.receive())
        return self.seen

    @query
    def so_far(self) -> list[str]:
        return self.seen

    @update
    async def add(self, name: str) -> int:
        self.seen.append(name)
        return len(self.seen)
