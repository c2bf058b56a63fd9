"""A client of an engine in another process of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perdure._client.backend import PortsBackend
from perdure.cli.locations import socket_path
from perdure.errors import Unavailable
from perdure_runtime.adapters.socket import SocketClient, connect
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas.messages import Message


class SocketBackend(PortsBackend):
    """Through the socket of a `perdure dev`, given by its own path or by that of the database."""

    def __init__(self, path: Path, namespace: str) -> None:
        super().__init__(namespace)
        self._path = path if path.suffix == ".sock" else socket_path(path)
        self._socket: SocketClient | None = None

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        try:
            self._socket = await connect(self._path)
        except (OSError, StorageUnavailable) as error:
            raise Unavailable(f"{error}. Is `perdure dev` running?") from error
        try:
            self.use(self._socket.broker, self._socket.reads, self._socket.reads)
            await super().open(client_id, deliver)
        except BaseException:
            await self._socket.close()
            raise

    async def close(self) -> None:
        await super().close()
        if self._socket is not None:
            await self._socket.close()
