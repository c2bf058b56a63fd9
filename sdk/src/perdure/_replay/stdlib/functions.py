"""Functions of asyncio as workflow code has them, whatever the Python version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Self, TypeVar

from perdure._replay.futures import Gathering
from perdure._replay.handles import Timer
from perdure._replay.loop import ReplayLoop, current

T = TypeVar("T")

# --- gather ---------------------------------------------------------------------------------------------


def gather(*awaitables: Awaitable[Any], return_exceptions: bool = False) -> asyncio.Future[list[Any]]:
    """As in Python 3.12 and 3.13."""
    started: dict[int, asyncio.Future[Any]] = {}
    for awaitable in awaitables:
        if id(awaitable) not in started:
            started[id(awaitable)] = asyncio.ensure_future(awaitable)
    return Gathering(current("gather()"), [started[id(awaitable)] for awaitable in awaitables], return_exceptions)


# --- wait_for -------------------------------------------------------------------------------------------


async def wait_for(fut: Awaitable[T], timeout: float | None) -> T:
    """As in Python 3.12 and 3.13: awaited in place, unless there is no time at all."""
    if timeout is not None and timeout <= 0:
        future = asyncio.ensure_future(fut)
        if not future.done():
            future.cancel()
            await asyncio.wait([future])
        try:
            return future.result()
        except asyncio.CancelledError as canceled:
            raise TimeoutError from canceled
    async with asyncio.timeout(timeout):
        return await fut


# --- as_completed ---------------------------------------------------------------------------------------


class _AsCompleted:
    """Iterates over awaitables as they end: over themselves by `async for`, over their results by `for`."""

    def __init__(self, loop: ReplayLoop, awaitables: Iterable[Awaitable[Any]], timeout: float | None) -> None:
        distinct = dict.fromkeys(awaitables)  # in the order given
        self._open: dict[asyncio.Future[Any], None] = dict.fromkeys(map(asyncio.ensure_future, distinct))
        self._left = len(self._open)
        self._ended: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self._timer: Timer | None = None
        for future in self._open:
            future.add_done_callback(self._end)
        if self._open and timeout is not None:
            self._timer = loop.call_later(timeout, self._time_out)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._result()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> asyncio.Future[Any]:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next()

    def _end(self, future: asyncio.Future[Any]) -> None:
        if future not in self._open:
            return  # the time was up
        del self._open[future]
        self._ended.put_nowait(future)
        if not self._open and self._timer is not None:
            self._timer.cancel()

    def _time_out(self) -> None:
        for future in self._open:
            future.remove_done_callback(self._end)
            self._ended.put_nowait(None)
        self._open.clear()

    async def _next(self) -> asyncio.Future[Any]:
        future = await self._ended.get()
        if future is None:
            raise TimeoutError
        return future

    async def _result(self) -> Any:
        return (await self._next()).result()


def as_completed(fs: Iterable[Awaitable[Any]], *, timeout: float | None = None) -> _AsCompleted:
    """As in Python 3.13, but in the order given."""
    if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
        raise TypeError(f"as_completed() takes an iterable of awaitables, not {type(fs).__name__}")
    return _AsCompleted(current("as_completed()"), fs, timeout)
