"""The API on a port, inside a running loop."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import uvicorn
from fastapi import FastAPI

from perdure_runtime.errors import AlreadyInUse


class Unprotected(ValueError):
    """An API that others than this machine can reach needs a token: set PERDURE_API_TOKEN, or bind to 127.0.0.1."""


def check_exposure(host: str, token: str) -> None:
    """Raises Unprotected."""
    if token or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise Unprotected(f"{host} can be reached from elsewhere: set PERDURE_API_TOKEN, or bind to 127.0.0.1.")


IDLE_SECONDS_MAX = 75
"""An idle connection is kept for longer than clients (aiohttp: 15 s) and proxies (60 s) keep one. Who closes first may
do it while a request is on its way, which is then reset; and `kubectl port-forward` ends when it sees that."""


class _Server(uvicorn.Server):
    """Leaves signals to the process it is part of."""

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        return nullcontext()


@asynccontextmanager
async def serving(
    application: FastAPI, host: str, port: int, *, grace_seconds: int | None = None
) -> AsyncIterator[int]:
    """Serve; yields the port once it listens.

    Args:
        grace_seconds: what requests under way get at the end; None: until they are answered.

    Raises:
        AlreadyInUse: another process has the port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AlreadyInUse(f"port {port} of {host} is held by another process: {error}") from error
    bound: int = listener.getsockname()[1]
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=IDLE_SECONDS_MAX,
        timeout_graceful_shutdown=grace_seconds,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve([listener]), name="http")
    started = asyncio.create_task(_started(server), name="http started")
    await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if running.done():
        running.result()
        raise RuntimeError("the API could not start; its log says why")
    try:
        yield bound
    finally:
        server.should_exit = True
        await running
        listener.close()


async def _started(server: uvicorn.Server) -> None:
    while not server.started:  # noqa: ASYNC110  # once in a life, and the library has no event for it
        await asyncio.sleep(0.005)
