"""An asyncio loop whose time is virtual: it jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Coroutine
from typing import Any

EPOCH_MS = 1_700_000_000_000
"""Virtual time 0, as epoch milliseconds."""


class Deadlock(Exception):
    """Nothing is left to run and no timer is set."""


class _NoWaiting(selectors.BaseSelector):
    """Selects nothing; a wait advances virtual time instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits for something that will not come")
        self.now += max(timeout, 0.0)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys


process_of: contextvars.ContextVar[object] = contextvars.ContextVar("process_of", default=None)
"""The simulated process a task belongs to; inherited by the tasks it creates."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: one thread, FIFO, and time only moves when all is quiet."""

    def __init__(self) -> None:
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)
        self.by_process: dict[object, dict[asyncio.Task[Any], None]] = {}
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._virtual.now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
        process = process_of.get()
        if process is not None:
            tasks = self.by_process.setdefault(process, {})
            tasks[task] = None
            task.add_done_callback(lambda done: tasks.pop(done, None))
        return task


class VirtualClock:
    """The `Clock` port on a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000)
