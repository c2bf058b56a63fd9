"""An asyncio loop whose time is virtual: it jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000
"""Virtual time 0, in epoch milliseconds."""


class Deadlock(Exception):
    """Nothing is left to run and no timer is set."""


owner_of: contextvars.ContextVar[object] = contextvars.ContextVar("owner_of", default=None)
"""Whom a task belongs to; inherited by the tasks it creates."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Deterministic: one thread, first come first served, and time only moves when all is quiet."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector: Any = self  # what `BaseEventLoop` waits on
        self._owned: dict[object, dict[asyncio.Task[Any], None]] = {}
        factory: Any = self._make_task
        self.set_task_factory(factory)
        self.set_exception_handler(lambda loop, context: None)  # the dead leave unfinished tasks behind

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Called when nothing is ready, with the time to the next timer."""
        if timeout is None:
            raise Deadlock("every task waits for something that will not come")
        self._now += max(timeout, 0.0)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none: no file is watched."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody needs to be woken."""

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, **options)
        owner = owner_of.get()
        if owner is not None:
            owned = self._owned.setdefault(owner, {})
            owned[task] = None
            task.add_done_callback(lambda done: owned.pop(done, None))
        return task

    def cancel_all_of(self, owner: object) -> None:
        """Cancel every task of an owner, oldest first."""
        for task in list(self._owned.pop(owner, ())):
            task.cancel()


class VirtualClock:
    """The `Clock` port on a virtual loop. `skew_ms` is how far it is off."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew_ms = 0

    def now(self) -> int:
        return EPOCH_MS + self.skew_ms + int(self._loop.time() * 1000)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, as those of the memory adapter do."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("it waits for something")
