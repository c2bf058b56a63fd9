"""Where the time of an engine comes from."""

from __future__ import annotations

import asyncio
import time

_NS_PER_MS = 1_000_000


class SystemClock:
    """The wall clock of this machine."""

    def now(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // _NS_PER_MS


class LoopClock:
    """The time of the running event loop, counted from an epoch: virtual where the loop's time is."""

    def __init__(self, epoch_ms: int = 0) -> None:
        self._epoch_ms = epoch_ms

    def now(self) -> int:
        """`epoch_ms` plus the loop's time, in milliseconds."""
        return self._epoch_ms + int(asyncio.get_running_loop().time() * 1000)
