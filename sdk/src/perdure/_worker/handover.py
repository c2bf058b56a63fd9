"""Passing things between threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """Takes items in any thread and gives them to `handle` on `loop`, all that are there at once.

    One wake-up per batch rather than per item: waking a loop from outside costs a system call.
    """

    __slots__ = ("_handle", "_items", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[list[T]], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._items: deque[T] = deque()
        self._scheduled = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                self._items.clear()

    def _drain(self) -> None:
        # In this order: what is put after the flag is down schedules a drain of its own.
        self._scheduled = False
        items: list[T] = []
        while self._items:
            items.append(self._items.popleft())
        if items:
            self._handle(items)
