"""Callbacks that are ready, and timers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop


class Ready(asyncio.Handle):
    """A callback whose turn comes. asyncio's own Handle formats debug information at each creation."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self._callback: Any = callback
        self._args = args
        self._context = context if context is not None else contextvars.copy_context()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = None, ()  # who is called back often holds this very handle

    def cancelled(self) -> bool:
        return self._cancelled

    def __repr__(self) -> str:
        return f"<Ready {self._callback!r}>"


class Timer(Ready):
    """A durable timer with a callback. Canceling it cancels the command."""

    __slots__ = ("_replay", "_when", "id", "position")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None, *, when: float
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._replay: ReplayLoop | None = None
        self.id = ""
        self.position = ""

    def start(self, loop: ReplayLoop, position: str, id: str) -> None:
        self._replay, self.position, self.id = loop, position, id

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        if self._cancelled:
            return
        loop = self._replay
        if loop is not None and self.id in loop.pending and not loop.evicting:
            loop.issue_cancel(self.position, self.id, "")
            loop.waits.remove(self.id)
        super().cancel()
