"""It is told beforehand whether closing a run would run code of its author, on every version of Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from perdure import Channel, all_of, branch, channel, completed, sleep, workflow
from tests.sdk.replay import world
from tests.sdk.replay.shaping import doubled, echo

CALM: list[Any] = []
TRYING: list[Any] = []
ran: list[str] = []


def shape(into: list[Any]) -> Callable[[Any], Any]:
    def register(fn: Any) -> Any:
        into.append(workflow(fn))
        return fn

    return register


@shape(CALM)
async def plain() -> None:
    await echo(1)


@shape(CALM)
async def in_a_comprehension() -> list[int]:
    return [await echo(number) for number in range(3)]


@shape(CALM)
async def after_a_try() -> None:
    try:
        ran.clear()
    finally:
        ran.clear()
    await echo(1)


@shape(CALM)
async def in_a_handler() -> None:
    try:
        raise ValueError
    except ValueError as error:
        ran.append(str(error))
        await echo(1)


@shape(CALM)
async def in_helpers_and_branches() -> None:
    await asyncio.gather(doubled(1), branch(doubled(2)), all_of(echo(1), echo(2)))


@shape(CALM)
async def over_what_completes() -> None:
    async for _ in completed([echo(1), echo(2)]):
        await echo(3)


@shape(CALM)
async def for_a_signal() -> None:
    values: Channel[int] = channel("values", int)
    async for value in values:
        await echo(value)


@shape(CALM)
async def in_asyncio() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    await queue.get()


@shape(CALM)
async def a_branch_that_has_not_begun() -> None:
    deferred = echo(1)
    deferred.add_done_callback(lambda _: branch(tries()))
    await sleep(100)


async def tries() -> None:
    try:
        await echo(1)
    finally:
        ran.append("finally")


@shape(TRYING)
async def directly() -> None:
    await tries()


@shape(TRYING)
async def in_a_branch() -> None:
    await asyncio.gather(doubled(1), tries())


@shape(TRYING)
async def in_an_except() -> None:
    try:
        for _ in range(2):
            if await echo(1):
                await echo(2)
    except BaseException:
        ran.append("except")
        raise


@shape(TRYING)
async def in_an_except_of_a_finally() -> None:
    try:
        try:
            ran.clear()
        finally:
            await echo(1)
    finally:
        ran.append("outer finally")


@shape(TRYING)
async def in_a_with() -> None:
    with told():
        await echo(1)


@shape(TRYING)
async def in_an_async_with() -> None:
    async with told_later():
        await echo(1)


@shape(TRYING)
async def in_a_generator() -> None:
    async for _ in numbers():
        await echo(2)


@contextmanager
def told() -> Any:
    try:
        yield
    finally:
        ran.append("with")


@asynccontextmanager
async def told_later() -> AsyncIterator[None]:
    try:
        yield
    finally:
        ran.append("async with")


async def numbers() -> AsyncIterator[int]:
    try:
        yield await echo(1)
    finally:
        ran.append("generator")


@pytest.mark.parametrize("code", [*CALM, *TRYING], ids=lambda code: code.name)
def test_it_is_told_what_closing_will_run(code: Any) -> None:
    live = world.instance_of(code)
    live.turn([world.recorded(1, world.started())], base=1, generation=0)
    assert live.eviction_runs_user_code is (code in TRYING)
    ran.clear()
    live.evict()
    if code.name != "in_a_generator":  # some versions of Python drop an asynchronous generator that is awaited
        assert bool(ran) is (code in TRYING)
    assert not live.eviction_runs_user_code
