"""Pauses in which messages gather while many come, since what is done for several together costs less for each."""

from __future__ import annotations

import asyncio
from time import monotonic

_NEARLY_FULL = 0.8
"""Of what a batch can be: more wait already then."""
MUCH_FROM = 30
"""Messages per second. A run of one task has two or three for lists, and one for timers; people who look on cannot
follow ten such runs a second."""


class Gathering:
    def __init__(self, seconds: float, most: int) -> None:
        """Pauses of so many seconds (0: none), for batches of so many messages at most."""
        self._seconds = seconds
        self._most = most
        self._behind = False
        self._began = 0.0
        self._counts = [0, 0]
        """Messages of the second before, and of this one so far."""

    def took(self, count: int) -> None:
        """So many came."""
        self._behind = count >= self._most * _NEARLY_FULL
        self._move_on()
        self._counts[1] += count

    async def pause(self) -> None:
        """Before the next are taken; at once while little comes, and while nobody can keep up anyway."""
        self._move_on()
        if self._seconds and not self._behind and max(self._counts) >= MUCH_FROM:
            await asyncio.sleep(self._seconds)

    def _move_on(self) -> None:
        passed = monotonic() - self._began
        if passed >= 1.0:
            self._counts = [self._counts[1] if passed < 2.0 else 0, 0]
            self._began = monotonic()
