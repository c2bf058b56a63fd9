"""A run's time is the engine's, whatever clock its senders have."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure import Channel, Client, sleep, workflow

DAY_MS = 86_400_000


@workflow
class Waiting:
    go: Channel[str] = Channel()

    async def run(self) -> str:
        value = await self.go.receive()
        await sleep(0.05)
        return value


def test_a_sender_whose_clock_is_a_day_ahead_does_not_take_the_run_along() -> None:
    async def scenario() -> None:
        async with Client.embedded(Waiting) as client:
            run = await client.start(Waiting)
            requests: Any = run._requests
            made = requests.message
            requests.message = lambda *args: msgspec.structs.replace(made(*args), at=made(*args).at + DAY_MS)
            await run.signal(Waiting.go, "now")
            assert await run.result(timeout=60) == "now"

    asyncio.run(scenario())
