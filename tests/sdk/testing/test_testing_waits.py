"""What asyncio tasks wait for, as far as it can be seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest

from perdure._testing.waits import Wait, helpers, waits


async def part() -> None:
    await asyncio.sleep(1000)


async def stranger() -> None:
    await asyncio.get_running_loop().create_future()


async def grouped(what: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(what())


async def as_completed() -> None:
    for done in asyncio.as_completed([part(), part()]):
        await done


async def locked() -> None:
    async def hold(lock: asyncio.Lock) -> None:
        async with lock:
            await part()

    lock = asyncio.Lock()
    await asyncio.gather(hold(lock), hold(lock))


async def conditional() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def bounded(what: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(500):
        await what


async def generated() -> None:
    async def numbers() -> AsyncIterator[int]:
        await part()
        yield 1

    async for _ in numbers():
        pass


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


class Acquires:
    """As pools of connections have it."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from future()


@pytest.mark.parametrize(
    ("wait", "make"),
    [
        (Wait.TIME, part),
        (Wait.TIME, lambda: grouped(part)),
        (Wait.TIME, lambda: asyncio.wait_for(part(), 5)),
        (Wait.TIME, lambda: asyncio.wait_for(asyncio.shield(part()), 5)),
        (Wait.TIME, lambda: asyncio.wait([asyncio.ensure_future(part())], timeout=5)),
        (Wait.TIME, as_completed),
        (Wait.TIME, locked),
        (Wait.TIME, lambda: bounded(part())),
        (Wait.TIME, generated),
        (Wait.SIGNAL, lambda: asyncio.Event().wait()),
        (Wait.SIGNAL, lambda: asyncio.Queue[int]().get()),
        (Wait.SIGNAL, conditional),
        (Wait.SIGNAL, lambda: bounded(conditional())),
        (Wait.FUTURE, stranger),
        (Wait.FUTURE, lambda: grouped(stranger)),
        (Wait.FUTURE, lambda: asyncio.wait_for(stranger(), 5)),
        (Wait.FUTURE, lambda: asyncio.wait_for(future(), 5)),
        (Wait.FUTURE, lambda: asyncio.wait_for(Acquires(), 5)),  # no task is made of it from 3.12 on
        (Wait.FUTURE, lambda: asyncio.wait([future(), asyncio.ensure_future(part())])),
        (Wait.FUTURE, lambda: asyncio.gather(part(), future())),
        (Wait.FUTURE, lambda: asyncio.shield(future())),
    ],
)
def test_what_is_waited_for(wait: Wait, make: Callable[[], Any]) -> None:
    async def waiting() -> None:
        await make()

    loop = asyncio.SelectorEventLoop()
    task = loop.create_task(waiting())
    for _ in range(10):
        loop.call_soon(loop.stop)
        loop.run_forever()
    try:
        assert waits(loop) is wait
    finally:
        task.cancel()
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.close()


def test_helpers_are_threads_that_began_later_and_that_no_loop_knows() -> None:
    over = threading.Event()
    before = threading.enumerate()

    def started(name: str) -> threading.Thread:
        thread = threading.Thread(target=over.wait, name=name, daemon=True)
        thread.start()
        return thread

    try:
        known = [started(name) for name in ("perdure-task-1", "asyncio_0")]
        assert not helpers(before)
        helper = started("driver")
        assert helpers(before)
        assert not helpers([*before, helper])
    finally:
        over.set()
    for thread in (*known, helper):
        thread.join()
    assert not helpers(before)
