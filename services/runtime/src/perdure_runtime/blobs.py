"""What is done with blobs beside messages: read where they may be, kept with the run that records them, lent to others.

Nothing here happens to a message without a reference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from perdure_core import blobs as whose
from perdure_core.workflow_engine.decisions import Published
from perdure_runtime.ports import BlobAccess, Ports, RunKey
from perdure_schemas.blobs import Blob

log = logging.getLogger("perdure.workflow_engine")

T = TypeVar("T")

_AT_ONCE = 4
"""Blobs on their way per replica: together as much memory as 64 MB."""


_ASIDE_BYTES = 1024 * 1024
"""To hash that takes a millisecond."""


async def aside(size: int, work: Callable[[], T]) -> T:
    """What `work` returns, on a thread if it takes so many bytes that the loop would stand still: to hash, compress and
    encrypt does not hold the interpreter."""
    return work() if size <= _ASIDE_BYTES else await asyncio.to_thread(work)


async def fetch(store: BlobAccess, namespace: str, blob: Blob) -> bytes | None:
    """The bytes; nothing if they are gone.

    A run's own may not have been copied yet. Between two looks it may have been, and the original be removed: hence the
    third.
    """
    data = await store.get(namespace, blob)
    if data is None and blob.run_id:
        data = await store.get(namespace, whose.in_transit(blob))
        if data is None:
            data = await store.get(namespace, blob)
    return data


class Custody:
    """Copies blobs for the workflow engine: each copy may be made again, by anybody, and is the same."""

    def __init__(self, ports: Ports, namespace: str) -> None:
        self._blobs = ports.blobs
        self._store = ports.store
        self._namespace = namespace
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def keep(self, recorded: Sequence[Blob]) -> None:
        """Of what was just recorded, or found recorded: what is still in transit becomes the run's own.

        Raises:
            StorageUnavailable: of some nobody knows. Whoever records them once more tries again.
        """
        await asyncio.gather(*(self._keep(blob) for blob in dict.fromkeys(recorded)))

    async def _keep(self, blob: Blob) -> None:
        namespace, origin = self._namespace, whose.in_transit(blob)
        async with self._limit:
            data = await self._blobs.get(namespace, origin)
            if data is None:
                await self._tell_if_lost(blob)
                return
            await self._blobs.put(namespace, blob, data)
            if await self._store.tombstone(RunKey(namespace, blob.workflow_id), blob.run_id):
                await self._blobs.remove(namespace, blob)  # a purge that ran meanwhile may not have seen it
            await self._blobs.remove(namespace, origin)

    async def _tell_if_lost(self, blob: Blob) -> None:
        """What was copied before, or went with its run, is not in transit either."""
        if await self._blobs.get(self._namespace, blob) is not None:
            return
        if not await self._store.tombstone(RunKey(self._namespace, blob.workflow_id), blob.run_id):
            log.warning(
                "workflow id %r refers to a large value that is nowhere: who reads it is told so",
                blob.workflow_id,
                extra={"action": "blob_lost", "workflow_id": blob.workflow_id, "blob": blob.id, "bytes": blob.size},
            )

    async def lend(self, published: Sequence[Published]) -> list[Published]:
        """What to publish instead: messages to other runs refer to copies in transit, which are there by then.

        Raises:
            StorageUnavailable: of some nobody knows, and nothing may be published.
        """
        sent: list[Published] = []
        copies: list[tuple[Blob, Blob]] = []
        for topic, message in published:
            lent, needed = whose.lent(message)
            sent.append((topic, lent))
            copies += needed
        if copies:
            await asyncio.gather(*(self._copy(*each) for each in dict.fromkeys(copies)))
        return sent

    async def _copy(self, source: Blob, target: Blob) -> None:
        """What is gone is missed by whoever reads it: a run that was purged sends nothing that is news to anybody.

        What was recorded by an engine that has not come to copy it is kept first: a signal that moves on to the next
        run is recorded there under the same cause, and nobody would look here again.
        """
        for last in (False, True):
            async with self._limit:
                data = await self._blobs.get(self._namespace, source)
                if data is not None:
                    await self._blobs.put(self._namespace, target, data)
            if data is not None or last:
                return
            await self._keep(source)
