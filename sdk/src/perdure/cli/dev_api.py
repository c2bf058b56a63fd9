"""The HTTP API of a `perdure dev`: for this machine's programs, without a token, and for no web page of others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from perdure._extras import needed
from perdure.cli.output import ExitCode, Problem
from perdure.errors import NotInstalled
from perdure_runtime.errors import AlreadyInUse

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure_runtime.announced import Announcements
    from perdure_runtime.ports import Ports

HOST = "127.0.0.1"
PORT = 8420
"""Unless another process has it; then any that is free, which is told."""
_GRACE_SECONDS = 1
"""For requests under way: long polls are made again by whoever made them."""


class Told(Protocol):
    """Called once the API listens."""

    def __call__(self, url: str, *, instead_of: int | None = None) -> None:
        """`instead_of`: the usual port, which another process has."""


async def serve_api(
    ports: Ports,
    namespace: str,
    port: int | None,
    announcements: Announcements,
    *,
    told: Told,
    missing: Callable[[str], None],
) -> None:
    """Serve until canceled; `told` is called once it listens, or `missing` with the reason why not.

    Args:
        announcements: what workers have, and whether ours has the app.

    Raises:
        Problem: the port that was asked for is in use.
        NotInstalled: a port was asked for, and the extra `api` is not there.
    """
    try:
        application = await asyncio.to_thread(_make, ports, namespace, announcements)  # the import takes half a second
    except NotInstalled as error:
        if port is not None:
            raise
        missing(str(error))
        return
    try:
        await _serve(application, PORT if port is None else port, told)
    except AlreadyInUse as error:
        if port is not None:
            raise Problem(str(error), hint="--port 0   (any free one)", code=ExitCode.conflict) from error
        await _serve(application, 0, partial(told, instead_of=PORT))


def _make(ports: Ports, namespace: str, announcements: Announcements) -> FastAPI:
    with needed("api", "the HTTP API"):
        import uvicorn  # noqa: F401 what serves it
        from starlette.responses import JSONResponse

        from perdure._http.application import make_application

    application = make_application(ports, namespace, announcements=announcements)

    @application.middleware("http")
    async def only_from_here(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        """Browsers name the page that asks, and the host they believe to talk to."""
        if "origin" in request.headers or request.url.hostname not in {HOST, "localhost"}:
            return JSONResponse({"error": "web pages may not ask a perdure dev"}, 403)
        return await proceed(request)

    return application


async def _serve(application: FastAPI, port: int, told: Told) -> None:
    from perdure._http.serving import serving

    async with serving(application, HOST, port, grace_seconds=_GRACE_SECONDS) as bound:
        told(f"http://{HOST}:{bound}")
        await asyncio.Event().wait()
