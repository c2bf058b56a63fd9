"""A client of an engine in another process of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from perdure._client.backend import PortsBackend
from perdure._engines import engine_of
from perdure_runtime.adapters.socket import SocketClient
from perdure_schemas.messages import Message


class SocketBackend(PortsBackend):
    """Through the socket of a `perdure dev`, given by its own path or by that of the database."""

    def __init__(self, path: Path, namespace: str) -> None:
        super().__init__(namespace)
        self._path = path
        self._socket: SocketClient | None = None

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        self._socket = await engine_of(self._path, self.namespace)
        try:
            reads = self._socket.reads
            announced = partial(reads.announced, self.namespace)
            self.use(self._socket.broker, reads, reads, blobs=self._socket.blobs, announcements=announced)
            await super().open(client_id, deliver)
        except BaseException:
            await self._socket.close()
            raise

    async def close(self) -> None:
        await super().close()
        if self._socket is not None:
            await self._socket.close()
