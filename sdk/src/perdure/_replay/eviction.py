"""The end of a live run: every suspended frame is closed here and now, and nothing can come out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure._replay import compat
from perdure._replay.futures import Branch

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

_CLOSE_TRIES_MAX = 10
"""How often a coroutine that awaits in a `finally` is closed: each try leaves one `try` block."""
_unclosable: list[Any] = []
"""Coroutines that swallow every attempt to close them. They are kept, for the garbage collector would run their code
amid the turn of another run. Whoever writes such a thing leaks it."""


def close_all(loop: ReplayLoop) -> None:
    """Refuse every call of the SDK, drop callbacks, close frames.

    `finally` blocks and `except BaseException` run up to their first such call.
    """
    loop.evicting = True
    loop.ready.clear()
    for waited in list(loop.pending.values()):
        waited.cancel()  # drops callbacks, which breaks the cycle of task and future
    for box in loop.mailboxes.values():
        box.close()
    for branch in list(loop.branches.values()):
        waiter = compat.waiter(branch)
        if waiter is not None and not isinstance(waiter, Branch):
            waiter.cancel()
        _close(branch)
        for callback, _ in compat.callbacks(branch):
            branch.remove_done_callback(callback)  # as above: of task and group
        compat.silence(branch)
    for branch in loop.failed:
        compat.silence(branch)
    loop.branches.clear()
    loop.failed.clear()
    loop.pending.clear()
    loop.mailboxes.clear()
    loop.generators.clear()
    loop.ready.clear()
    loop.waits.close()


def _close(branch: Branch[Any]) -> None:
    coro: Any = branch.get_coro()
    for _ in range(_CLOSE_TRIES_MAX):
        try:
            branch.context.run(coro.close)  # a `finally` may reset a context variable
            return
        except RuntimeError:  # "coroutine ignored GeneratorExit": it awaited in a finally
            continue
        except BaseException:  # raised by user code while it is closed: nobody is there to take it
            return
    _unclosable.append(coro)
