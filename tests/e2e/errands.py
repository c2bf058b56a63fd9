"""The app of the tests' workers. What its tasks begin and end, they tell the ledger."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request

from perdure import Retry, task, workflow

CODE = "first"
"""Which code this is: builds differ by it."""
ONCE = Retry(attempts=1)


@task(retry=ONCE)
async def toil(name: str, seconds: float) -> str:
    await asyncio.to_thread(_tell, f"{name} began")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(_tell, f"{name} ended")
    return name


@task(retry=ONCE)
def devour(name: str, megabytes: int) -> int:
    """Eats memory bit by bit, as programs do."""
    _tell(f"{name} began")
    eaten = []
    for _ in range(megabytes):
        eaten.append(b"x" * (1 << 20))
        time.sleep(0.002)
    return len(eaten)


@workflow
async def errand(name: str, seconds: float) -> str:
    return await toil(name, seconds)


@workflow
async def feast(name: str, megabytes: int) -> int:
    return await devour(name, megabytes)


@workflow
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return CODE


def _tell(line: str) -> None:
    request = urllib.request.Request(os.environ["LEDGER"], line.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10):
        pass
