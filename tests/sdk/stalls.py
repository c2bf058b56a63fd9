"""How long the running loop stood still: what is late by no more than that is late through no fault of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LOOK_SECONDS = 0.01


class Stalled:
    """A measurement under way."""

    seconds = 0.0
    """By which the loop's looks came too late, together. Complete once the block is left."""


@asynccontextmanager
async def stalls() -> AsyncIterator[Stalled]:
    """While the process is stopped, or others have the processors."""
    stalled = Stalled()

    async def look() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            stalled.seconds += time.monotonic() - before - LOOK_SECONDS

    looking = asyncio.create_task(look())
    try:
        yield stalled
        await asyncio.sleep(2 * LOOK_SECONDS)  # the look that is under way is late, too
    finally:
        looking.cancel()
