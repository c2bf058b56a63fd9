"""Parts of asyncio that depend on memory addresses or on the Python version, frozen for workflow code.

`as_completed` makes its tasks in the order of a set of coroutines, which is that of their addresses: positions would
move. The others changed between Python 3.11 and 3.13, and an upgrade of Python would break open runs: `wait_for` took a
branch of its own; `gather` of what is done already did not answer at once; a canceled `TaskGroup` whose tasks fail, and
canceled waiters of a `Condition` or `Semaphore`, did something else. Each is replaced, once per process, by what runs
ours in workflow code and asyncio's everywhere else.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import Any

from perdure._replay.loop import running
from perdure._replay.stdlib import classes, functions

_installed = False


def install() -> None:
    """Replace them, also in modules that hold the functions by `from asyncio import ...`.

    Modules imported later get the replaced ones from asyncio itself.
    """
    global _installed
    if _installed:
        return
    _installed = True
    for owner, name, frozen in _METHODS:
        setattr(owner, name, _dispatcher(getattr(owner, name), frozen))
    replaced = {id(original): _dispatcher(original, frozen) for original, frozen in _FUNCTIONS}
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if type(names) is not dict or module is sys.modules[__name__]:
            continue
        for name, value in list(names.items()):
            ours = replaced.get(id(value))
            if ours is not None:
                names[name] = ours


def _dispatcher(original: Callable[..., Any], frozen: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        return (original if running() is None else frozen)(*args, **kwargs)

    return dispatch


_FUNCTIONS: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
    (asyncio.gather, functions.gather),
    (asyncio.wait_for, functions.wait_for),
    (asyncio.as_completed, functions.as_completed),
)
_METHODS: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (asyncio.TaskGroup, "__aexit__", classes.leave_task_group),
    (asyncio.Condition, "wait", classes.wait_for_notice),
    (asyncio.Semaphore, "acquire", classes.acquire_semaphore),
)
