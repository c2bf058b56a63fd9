"""Where suspended frames stand: whether to close them would run code of the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

from perdure._replay import compat

_CODES_KEPT_MAX = 1_024
"""Of the functions of an application that await something: more than most have."""
_NOT_USERS = ("asyncio.", "perdure.")
"""Modules whose `try` blocks have no effect outside of the run."""


def closing_runs_user_code(coroutines: Iterable[Any], generators: Iterable[Any]) -> bool:
    """Whether one of them is suspended within a `try` or a `with` of the user.

    A guess, for choosing among runs: what is told of a frame depends on how CPython compiles it.
    """
    roots = [*coroutines, *(generator for generator in generators if generator.ag_running)]
    return any(
        not frame.f_globals.get("__name__", "").startswith(_NOT_USERS) and _within_try(frame.f_code, frame.f_lasti)
        for root in roots
        for frame in _frames(root)
    )


def _frames(awaiting: Any) -> Iterator[FrameType]:
    """Of a coroutine or generator, and of what it awaits."""
    while awaiting is not None:
        for frame_name, awaited_name in compat.SUSPENDED:
            frame = getattr(awaiting, frame_name, None)
            if frame is not None:
                yield frame
                awaiting = getattr(awaiting, awaited_name)
                break
        else:
            return


@lru_cache(_CODES_KEPT_MAX)
def _within_try(code: CodeType, position: int) -> bool:
    """Whether the innermost handler around the instruction, or one around that one, is written by a user."""
    seen: set[int] = set()
    while position not in seen:
        seen.add(position)
        handler = compat.handler(code, position)
        if handler is None:
            return False
        target, is_users = handler
        if is_users:
            return True
        position = target
    return False
