"""How much lies beside each head, and when it is time to archive."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from perdure_runtime.adapters.cassandra.archives import Archives
from perdure_runtime.ports import RunKey

_TAIL_BYTES_MAX = 4 << 20
"""Of commits beside a head: read whole by every load, so small; moved in one go, so not tiny."""
_TAIL_ROWS_MAX = 2_000
"""As above, where commits are small: a page of a read holds more."""
_SIZES_MAX = 100_000
"""Workflow ids whose size of the tail is remembered. A forgotten one is counted again when it is loaded."""


@dataclass(slots=True)
class _Size:
    """Of the commits that lie beside a head."""

    rows: int = 0
    bytes: int = 0

    def add(self, data: int) -> bool:
        """Whether it is time to archive."""
        self.rows += 1
        self.bytes += data
        return self.rows > _TAIL_ROWS_MAX or self.bytes > _TAIL_BYTES_MAX


class Tails:
    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._sizes: OrderedDict[RunKey, _Size] = OrderedDict()
        self._archiving: dict[RunKey, asyncio.Task[None]] = {}

    def measured(self, key: RunKey, rows: int, data: int) -> None:
        """A load has counted."""
        self._remember(key, _Size(rows, data))

    def grown(self, key: RunKey, data: int) -> None:
        """One commit more, of so many bytes beside the head; what is too much there is moved, while others go on.

        One move of a workflow id at a time: a second one would copy what the first has not deleted yet.
        """
        size = self._sizes.get(key) or _Size()
        self._remember(key, size)
        if size.add(data) and key not in self._archiving:
            self._remember(key, _Size())
            task = asyncio.get_running_loop().create_task(self._archives.move(key))
            self._archiving[key] = task
            task.add_done_callback(lambda _: self._archiving.pop(key))

    def _remember(self, key: RunKey, size: _Size) -> None:
        self._sizes[key] = size
        self._sizes.move_to_end(key)
        if len(self._sizes) > _SIZES_MAX:
            self._sizes.popitem(last=False)

    async def close(self) -> None:
        """Wait for what is being archived."""
        if self._archiving:
            await asyncio.wait(self._archiving.values())
