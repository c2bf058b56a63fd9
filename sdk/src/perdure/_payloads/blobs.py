"""Where a process puts values that are too large for a message, and reads them, with patience."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from perdure.errors import Unavailable
from perdure_runtime.blobs import fetch
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import BlobAccess
from perdure_schemas.blobs import Blob

_log = logging.getLogger("perdure.payloads")
_T = TypeVar("_T")

_RETRY_SECONDS_FIRST = 0.05
_RETRY_SECONDS_MAX = 5.0


class Blobs(Protocol):
    """Of one namespace."""

    async def put(self, blob: Blob, data: bytes) -> None:
        """Into transit; durable on return.

        Raises:
            Unavailable, StorageUnavailable: it may or may not be stored; it may be tried again.
            PayloadTooLarge: it is never taken.
        """
        ...

    async def get(self, blob: Blob) -> bytes | None:
        """The bytes; nothing if they are gone. Raises Unavailable, StorageUnavailable."""
        ...


class StoreBlobs:
    """Of a store of this process, or of one that a socket leads to."""

    def __init__(self, store: BlobAccess, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    async def put(self, blob: Blob, data: bytes) -> None:
        await self._store.put(self._namespace, blob, data)

    async def get(self, blob: Blob) -> bytes | None:
        return await fetch(self._store, self._namespace, blob)


async def patiently(attempt: Callable[[], Awaitable[_T]], seconds_max: float) -> _T:
    """What the attempt returns, once it succeeds; it is repeated while nobody answers.

    Raises:
        Unavailable, StorageUnavailable: of the last attempt within `seconds_max`.
    """
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds_max, _RETRY_SECONDS_FIRST
    while True:
        try:
            return await attempt()
        except (StorageUnavailable, Unavailable) as error:
            if loop.time() + pause > until:
                raise
            _log.warning("a large value waits for the blob store: %s", error, extra={"action": "blob_retried"})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _RETRY_SECONDS_MAX)
