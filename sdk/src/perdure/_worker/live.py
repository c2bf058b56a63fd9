"""Live instances, least recently used first, bounded by what they weigh."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from perdure._replay.instance import Instance

CACHE_BYTES = 256 * 1024 * 1024
"""About 60,000 small runs, or 250 that hold a megabyte each; beyond it runs are replayed from their history."""
CANDIDATES_MAX = 8
"""So many runs are looked at to evict one: a few microseconds each, and none of them is used much later."""


class LiveInstances:
    """Every method is called on the workflow thread: eviction runs there, too."""

    def __init__(self, bytes_max: int = CACHE_BYTES) -> None:
        self._bytes_max = bytes_max
        self._runs: OrderedDict[tuple[str, str], Instance] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._bytes = 0

    def get(self, workflow_id: str, run_id: str) -> Instance | None:
        found = self._runs.get((workflow_id, run_id))
        if found is not None:
            self._runs.move_to_end((workflow_id, run_id))
        return found

    def put(self, workflow_id: str, run_id: str, instance: Instance) -> None:
        """Keep it, or account for what it has grown to; evict others while there is too much."""
        key = (workflow_id, run_id)
        known = self._runs.get(key)
        if known is not None and known is not instance:
            known.evict()
        self._runs[key] = instance
        self._runs.move_to_end(key)
        size = instance.size_bytes
        self._bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        while self._bytes > self._bytes_max and len(self._runs) > 1:
            self.discard(*self._dispensable(but=key))

    def _dispensable(self, *, but: tuple[str, str]) -> tuple[str, str]:
        """One that was not used for long, rather one whose closing runs no code of the user's than the very last."""
        oldest = [key for key in islice(self._runs, CANDIDATES_MAX) if key != but]
        return next((key for key in oldest if not self._runs[key].eviction_runs_user_code), oldest[0])

    def discard(self, workflow_id: str, run_id: str) -> None:
        key = (workflow_id, run_id)
        found = self._runs.pop(key, None)
        if found is not None:
            self._bytes -= self._sizes.pop(key)
            found.evict()

    def clear(self) -> None:
        for key in list(self._runs):
            self.discard(*key)
