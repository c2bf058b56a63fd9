"""What leaves something behind in every place there is: for the tests of retention."""

from __future__ import annotations

import asyncio
import datetime as dt

from perdure import (
    Channel,
    Retry,
    WorkflowError,
    all_of,
    any_of,
    continue_as_new,
    current_task,
    sleep,
    task,
    timer,
    workflow,
)

RETENTION_S = 5.0
YEAR = dt.timedelta(days=365)
_TRIES = 3
_MENDED: set[str] = set()
"""What fails until a test has mended it."""


def mend(name: str) -> None:
    _MENDED.add(name)


@task
async def echo(value: str) -> str:
    return value


@task(retry=Retry(attempts=5, initial=0.05), total_timeout=YEAR, timeout=YEAR)
async def shaky(value: str) -> str:
    """Its record outlives the first attempts, with a time-out far ahead."""
    if current_task().attempt < _TRIES:
        raise ConnectionError("not yet")
    return value


@task(retry=Retry(attempts=1))
async def broken(name: str) -> str:
    if name not in _MENDED:
        raise ValueError("not mended yet")
    return name


@task(total_timeout=YEAR)
async def lasting() -> None:
    await asyncio.sleep(3_600)


@workflow(retention=RETENTION_S)
async def plain(value: str) -> str:
    return await echo(value)


@workflow(retention=RETENTION_S, timeout=YEAR)
async def patient(value: str) -> str:
    return await shaky(value)


@workflow(retention=RETENTION_S)
async def family(children: int) -> list[str]:
    return list(await all_of(*(plain(f"child {number}") for number in range(children))))


@workflow(retention=RETENTION_S)
class Collector:
    """Waits a year at most: the timer of that is given up each time."""

    values: Channel[str] = Channel()

    async def run(self, count: int) -> int:
        await sleep(0.05)
        sizes = 0
        for _ in range(count):
            value = await any_of(self.values.receive(), timer(YEAR))
            assert value is not None
            sizes += len(value)
        return sizes


@workflow(retention=RETENTION_S)
async def failing(name: str) -> str:
    """With another task under way, which stays open: a failed run can be resumed."""
    lasting()
    await echo(name)
    return await broken(name)


@workflow(retention=RETENTION_S)
async def refusing(name: str) -> None:
    lasting()
    await echo(name)
    raise WorkflowError("no")


@workflow(retention=RETENTION_S)
async def relay(runs: int) -> int:
    await echo(str(runs))
    if runs > 1:
        continue_as_new(relay, runs - 1)
    return runs


@workflow(retention=RETENTION_S)
async def offloading(value: str, runs: int) -> int:
    """What is stored beside the messages goes to a child and back, and to the next run."""
    found = await plain(value)
    if runs > 1:
        continue_as_new(offloading, found, runs - 1)
    return len(found)


@workflow(retention=RETENTION_S)
async def many_turns(turns: int) -> int:
    for number in range(turns):
        await echo(str(number))
    return turns


OBJECTS = (
    echo, shaky, broken, lasting, plain, patient, family, Collector, failing, refusing, relay,
    offloading, many_turns,
)  # fmt: skip
