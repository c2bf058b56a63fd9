"""The time that async tasks live in: the real one, or a test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from perdure_schemas.messages import RunTask


class Alarm(Protocol):
    """What `TaskTime.call_later` set."""

    def cancel(self) -> None: ...


class TaskTime(Protocol):
    """Used on the messaging loop, but for the loop that it makes."""

    def time(self) -> float:
        """Seconds since some moment."""
        ...

    def call_later(self, seconds: float, callback: Callable[..., None], *args: object) -> Alarm:
        """Call it on the messaging loop."""
        ...

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """One for async tasks, to be run in a thread of its own."""
        ...

    def begun(self, run: RunTask) -> None:
        """User code is about to run for the attempt, on a loop of `new_loop`."""
        ...

    def ended(self, run: RunTask) -> None:
        """The attempt is answered, or given up. Told of attempts that have not begun, too."""
        ...

    def on_jump(self, callback: Callable[[], None]) -> None:
        """Call it whenever time has passed all at once."""
        ...


class RealTime:
    """That of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.time()

    def call_later(self, seconds: float, callback: Callable[..., None], *args: object) -> Alarm:
        return self._loop.call_later(seconds, callback, *args)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def begun(self, run: RunTask) -> None:
        """Nobody asks."""

    def ended(self, run: RunTask) -> None:
        """Nobody asks."""

    def on_jump(self, callback: Callable[[], None]) -> None:
        """It never does."""
