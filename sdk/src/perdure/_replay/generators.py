"""Asynchronous generators that a run has started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LIVE_MAX_FIRST = 16


class Generators:
    """Keeps them strongly, so that their end is ours to choose and not the garbage collector's."""

    __slots__ = ("_look_at", "_started")

    def __init__(self) -> None:
        self._started: dict[int, Any] = {}
        self._look_at = _LIVE_MAX_FIRST
        """How many there may be before those that have ended are looked for."""

    def keep(self, generator: Any) -> None:
        """One takes its first step."""
        if len(self._started) >= self._look_at:
            self._started = {k: g for k, g in self._started.items() if g.ag_frame is not None}
            self._look_at = max(_LIVE_MAX_FIRST, 2 * len(self._started))
        self._started[id(generator)] = generator

    def __iter__(self) -> Iterator[Any]:
        return iter(self._started.values())

    def clear(self) -> None:
        self._started.clear()


def let_go(_: Any) -> None:
    """To finalize one would run user code at an arbitrary time."""
