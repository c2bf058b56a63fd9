"""The garbage collector, which is off while workflow code runs: no finalizer may run amid it.

It is the process's, and turns may overlap: of several workers, or of a thread that was left behind in a turn. It is on
again when the last is out, unless it was off before the first: then the app wants it off.
"""

from __future__ import annotations

import gc
import threading

_lock = threading.Lock()
_holders: dict[int, int] = {}
"""How deep each thread is in workflow code, by its id."""
_was_on = True
"""As the first of the holders found it."""


def hold() -> None:
    """Keep it off until this thread lets go as often as it held."""
    global _was_on
    thread = threading.get_ident()
    with _lock:
        if not _holders:
            _was_on = gc.isenabled()
            gc.disable()
        _holders[thread] = _holders.get(thread, 0) + 1


def let_go() -> None:
    thread = threading.get_ident()
    with _lock:
        depth = _holders.get(thread, 0)
        if depth > 1:
            _holders[thread] = depth - 1
        elif depth:
            _drop(thread)


def forget(thread: int | None) -> None:
    """That thread holds it no more: it was left behind, or an interrupt may have kept it from letting go."""
    with _lock:
        if thread in _holders:
            _drop(thread)


def _drop(thread: int) -> None:
    del _holders[thread]
    if not _holders and _was_on:
        gc.enable()
