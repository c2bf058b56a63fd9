"""Runs larger than a message, with engine, worker and client in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure import Channel, Client, all_of, task, workflow

WIDTH = 4_000
LARGE = 300_000
PATIENCE_SECONDS = 280
"""Seconds here; on real servers and a busy machine, thousands of tasks take minutes."""


@task
async def plus_one(number: int) -> int:
    return number + 1


@workflow
async def fan(width: int) -> int:
    return sum(await all_of(*[plus_one(number) for number in range(width)]))


@workflow
class Lengths:
    texts: Channel[str] = Channel()

    async def run(self, wanted: int) -> int:
        return sum([len(await self.texts.receive()) for _ in range(wanted)])


def test_a_turn_of_more_commands_than_a_message_bears_completes() -> None:
    async def scenario() -> None:
        async with Client.embedded(plus_one, fan) as client:
            assert await client.execute(fan, WIDTH) == WIDTH * (WIDTH + 1) // 2

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_SECONDS))


def test_a_run_that_waits_for_more_events_than_a_message_bears_completes(tmp_path: Path) -> None:
    async def scenario() -> None:
        db = tmp_path / "db.sqlite"
        async with Client.embedded(db=db, worker=False) as client:
            run = await client.start(Lengths, 5, id="lengths")
            for _ in range(5):
                await run.signal(Lengths.texts, "x" * LARGE)
        async with Client.embedded(Lengths, db=db) as client:
            assert await client.handle("lengths").result(timeout=30) == 5 * LARGE

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_SECONDS))
