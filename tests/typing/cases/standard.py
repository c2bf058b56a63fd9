"""asyncio's own functions keep the types of what they are given."""

from __future__ import annotations

import asyncio
from typing import Protocol, assert_type

from perdure import Channel, Deferred, all_of, channel, service, service_stub, task, timer, workflow


@task
async def number(a: int) -> int:
    return a


@task
def numbers(a: int) -> list[int]:
    return [a]


@task
async def nothing() -> None: ...


@workflow
async def child(a: int) -> float:
    return float(a)


@service
class Payments(Protocol):
    async def charge(self, order: str) -> str: ...


payments = service_stub(Payments)
votes: Channel[bytes] = channel("votes", bytes)


async def with_a_time_limit() -> None:
    assert_type(await asyncio.wait_for(number(1), 5), int)
    assert_type(await asyncio.wait_for(numbers(1), timeout=None), list[int])
    assert_type(await asyncio.wait_for(nothing(), 5), None)
    assert_type(await asyncio.wait_for(child(1), 5), float)
    assert_type(await asyncio.wait_for(payments.charge("o-1"), 5), str)
    assert_type(await asyncio.wait_for(votes.receive(), 5), bytes)
    assert_type(await asyncio.wait_for(timer(1), 5), None)
    assert_type(await asyncio.wait_for(number(1) & child(2), 5), tuple[int, float])
    assert_type(await asyncio.wait_for(number(1) | child(2), 5), int | float)
    assert_type(await asyncio.wait_for(all_of(number(1), numbers(2)), 5), tuple[int, list[int]])
    deferred: Deferred[int] = number(1)
    inferred = await asyncio.wait_for(deferred, 5)
    assert_type(inferred, int)
    async with asyncio.timeout(5):
        limited = await number(1)
    assert_type(limited, int)

    _text: str = await asyncio.wait_for(number(1), 5)  # E
    inferred.upper()  # E
    limited.upper()  # E


async def returned() -> str:
    return await asyncio.wait_for(number(1), 5)  # E


async def several() -> None:
    assert_type(await asyncio.gather(number(1), numbers(2)), tuple[int, list[int]])
    assert_type(await asyncio.gather(number(1), number(2)), tuple[int, int])
    assert_type(await asyncio.gather(*[number(1), number(2)]), list[int])
    assert_type(
        await asyncio.gather(number(1), numbers(2), return_exceptions=True),
        tuple[int | BaseException, list[int] | BaseException],
    )
    done, pending = await asyncio.wait([number(1), number(2)])
    assert_type((done, pending), tuple[set[Deferred[int]], set[Deferred[int]]])
    assert_type(await asyncio.shield(number(1)), int)
    for each in asyncio.as_completed([number(1), number(2)]):
        assert_type(await each, int)
    async with asyncio.TaskGroup() as group:
        limited = group.create_task(asyncio.wait_for(number(1), 5))
    assert_type(limited.result(), int)

    _pair: tuple[int, int] = await asyncio.gather(number(1), numbers(2))  # E
    group.create_task(number(1))  # E
