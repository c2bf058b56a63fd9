"""What the asyncio tasks of a loop wait for: time alone, or perhaps somebody real."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import threading
from asyncio import futures
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import Any

AWAITED = {("asyncio.tasks", "_wait"): "fs", ("asyncio.tasks", "wait_for"): "fut"}
"""Functions of asyncio that wait for a future of their own, and in which variable they have what they are asked to wait
for. `wait_for` of Python 3.11 alone."""


class Wait(enum.IntEnum):
    """Who may end it."""

    TIME = 0
    """Time, or an asyncio task of the same loop."""
    SIGNAL = 1
    """Whoever sets an event or fills a queue: an asyncio task, most likely, but it may be a thread."""
    FUTURE = 2
    """Nobody known: so do drivers wait that have a thread of their own."""


def waits(loop: asyncio.BaseEventLoop) -> Wait:
    """The least known that any asyncio task of the loop waits for. To be called in the loop's thread, at rest."""
    tasks = asyncio.all_tasks(loop)
    own = {id(told) for task in tasks for told in _told_by(task)} | {id(future) for future in _sleeps(loop)}
    return max((_of(_waiter(task), _innermost(task), own) for task in tasks), default=Wait.TIME)


def helpers(before: Collection[threading.Thread]) -> bool:
    """Whether a thread runs of which no loop and no worker knows, and that did not run before."""
    return any(
        thread not in before and not thread.name.startswith(("asyncio_", "perdure")) for thread in threading.enumerate()
    )


def _of(awaited: asyncio.Future[Any] | None, frame: FrameType | None, own: set[int]) -> Wait:
    """`own`: ids of what timers and asyncio tasks of this loop set."""
    if isinstance(awaited, asyncio.Task):
        return Wait.TIME  # it is looked at itself
    children = _children(awaited, frame)
    if children is not None:
        return max((_of(child, None, own) for child in children if not child.done()), default=Wait.TIME)
    if id(awaited) in own:
        return Wait.TIME
    if frame is None:
        return Wait.FUTURE
    module, function = _place(frame)
    if module == "asyncio.locks" and function == "acquire":
        return Wait.TIME
    if module in ("asyncio.locks", "asyncio.queues"):
        return Wait.TIME if id(frame.f_locals.get("self")) in own else Wait.SIGNAL
    return Wait.FUTURE


def _children(awaited: asyncio.Future[Any] | None, frame: FrameType | None) -> Iterable[asyncio.Future[Any]] | None:
    """What a future that asyncio made waits for in its turn, as far as that is to be seen."""
    gathered: Iterable[asyncio.Future[Any]] | None = getattr(awaited, "_children", None)
    if gathered is not None:
        return gathered
    variable = None if frame is None else AWAITED.get(_place(frame))
    if frame is None or variable is None:
        return None
    found = frame.f_locals[variable]
    if variable == "fut":  # from 3.12 on it may be any awaitable of the user's own
        return [found] if asyncio.isfuture(found) else None
    among: Iterable[asyncio.Future[Any]] = found
    return among


def _sleeps(loop: asyncio.BaseEventLoop) -> Iterator[object]:
    """What `asyncio.sleep` waits for."""
    for handle in loop._scheduled:  # type: ignore[attr-defined]
        if handle._callback is futures._set_result_unless_cancelled:  # type: ignore[attr-defined]
            yield handle._args[0]


def _told_by(task: asyncio.Task[Any]) -> Iterator[object]:
    """What its end may set: that is how `shield`, `as_completed` and task groups wait."""
    for callback, _ in getattr(task, "_callbacks", None) or ():
        called: Callable[..., object] = callback
        if isinstance(called, functools.partial):
            yield from called.args
            called = called.func
        for cell in getattr(called, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # it is empty
                yield cell.cell_contents
        yield from getattr(getattr(called, "__self__", None), "__dict__", {}).values()


def _waiter(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    waiter: asyncio.Future[Any] | None = task._fut_waiter  # type: ignore[attr-defined]
    return waiter


def _innermost(task: asyncio.Task[Any]) -> FrameType | None:
    """Where it waits."""
    frame, awaits = None, task.get_coro()
    while (inner := getattr(awaits, "cr_frame", None)) is not None:
        frame, awaits = inner, awaits.cr_await  # type: ignore[union-attr]
    return frame


def _place(frame: FrameType) -> tuple[str, str]:
    return frame.f_globals.get("__name__", ""), frame.f_code.co_name
