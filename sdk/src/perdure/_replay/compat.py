"""Every private or version-dependent name of asyncio and CPython that the loop rests on, in one place.

Tested on 3.11 to 3.13. In 3.14 there is one current task per thread, so it must be put away before another loop's
task may run in a turn; that branch follows CPython's source.
"""

from __future__ import annotations

import asyncio
import dis
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable
from types import CodeType
from typing import Any

_get_running_loop: Callable[[], AbstractEventLoop | None] = asyncio._get_running_loop
_set_running_loop: Callable[[AbstractEventLoop | None], None] = asyncio._set_running_loop
_swap_current_task: Any = getattr(asyncio.tasks, "_swap_current_task", None)  # 3.12 on

running_loop = _get_running_loop
"""The running loop of this thread, or None: 40 ns, no exception."""

_exception_table: Callable[[CodeType], list[Any]] = dis._parse_exception_table  # type: ignore[attr-defined]
_USERS_HANDLER = dis.opmap["PUSH_EXC_INFO"]
"""How the handler of a `try` or a `with` begins; those that the compiler adds around an `await` begin otherwise."""

SUSPENDED = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
"""Of coroutines, generators and asynchronous generators: the frame, and what it awaits."""

Outer = tuple[AbstractEventLoop | None, Any, Any]
"""What `enter` put away."""


def enter(loop: AbstractEventLoop, first_iteration: Callable[[Any], None], finalizer: Callable[[Any], None]) -> Outer:
    """Make `loop` the running one of this thread, with its own hooks for asynchronous generators.

    The hooks of an outer loop would run the `finally` of an abandoned generator on that loop.
    """
    outer = _get_running_loop()
    task = _swap_current_task(outer, None) if outer is not None and _swap_current_task is not None else None
    hooks = sys.get_asyncgen_hooks()
    _set_running_loop(loop)
    sys.set_asyncgen_hooks(first_iteration, finalizer)
    return outer, task, hooks


def leave(state: Outer) -> None:
    """Undo `enter`."""
    outer, task, hooks = state
    sys.set_asyncgen_hooks(*hooks)
    _set_running_loop(outer)
    if outer is not None and _swap_current_task is not None:
        _swap_current_task(outer, task)


def callbacks(future: asyncio.Future[Any]) -> list[tuple[Any, Any]]:
    """(callback, context) of those who wait for a future."""
    return future._callbacks or []


def waiter(task: Any) -> asyncio.Future[Any] | None:
    """The future that a suspended task awaits."""
    future: asyncio.Future[Any] | None = task._fut_waiter
    return future


def exception(future: asyncio.Future[Any]) -> BaseException | None:
    """The exception of a future, without counting as having looked at it."""
    return future._exception


def unseen(future: asyncio.Future[Any]) -> bool:
    """Whether it failed and nobody has looked."""
    return future._log_traceback


def silence(future: asyncio.Future[Any]) -> None:
    """No report at garbage collection: its time is arbitrary, and we look ourselves."""
    if future._log_traceback:
        future._log_traceback = False


def closure(callback: Any) -> tuple[str, dict[str, Any]]:
    """The qualified name of a nested function of asyncio, and its free variables; empty where it is none."""
    code = getattr(callback, "__code__", None)
    cells = getattr(callback, "__closure__", None)
    if code is None or cells is None:
        return "", {}
    return callback.__qualname__, dict(zip(code.co_freevars, cells, strict=True))


def handler(code: CodeType, position: int) -> tuple[int, bool] | None:
    """Where an exception at this instruction would go, and whether a user wrote it."""
    for entry in _exception_table(code):
        if entry.start <= position < entry.end:
            return entry.target, code.co_code[entry.target] == _USERS_HANDLER
    return None
