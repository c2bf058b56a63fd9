"""/load of a worker: what it has in hand, and whether it takes more. Who is going to end it asks it to stop first.

    GET  /load          {"receiving": true, "in_flight": 3, "slots": 100}
    POST /load/drain    the same, once it takes no more; what is in progress goes on
    POST /load/resume   the same, once it takes work again

One that is not receiving and has nothing in flight has nothing to lose, and gets nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from perdure_runtime.errors import PerdureError
from perdure_runtime.service.probes import Health


class Work(Protocol):
    """Of a worker."""

    @property
    def receiving(self) -> bool: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None:
        """Raises PerdureError: it is paused as before."""
        ...


def work_routes(work: Work, health: Health, *, slots: int, token: str) -> list[web.RouteDef]:
    """`token`: what who pauses or resumes it must show; without one nobody may."""

    async def tell(_: web.Request) -> web.Response:
        told = {"receiving": work.receiving, "in_flight": health.progress.in_flight, "slots": slots}
        return web.json_response(told)

    def turning(turn: Callable[[], Awaitable[None]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            if not _may(request, token):
                problem = "show the worker's PERDURE_TOKEN: Authorization: Bearer …"
                return web.json_response({"problems": [problem]}, status=HTTPStatus.FORBIDDEN)
            try:
                await turn()
            except PerdureError as error:
                return web.json_response({"problems": [str(error)]}, status=HTTPStatus.SERVICE_UNAVAILABLE)
            return await tell(request)

        return answer

    return [
        web.get("/load", tell),
        web.post("/load/drain", turning(work.pause)),
        web.post("/load/resume", turning(work.resume)),
    ]


def _may(request: web.Request, token: str) -> bool:
    shown = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    return bool(token) and hmac.compare_digest(shown, f"Bearer {token}".encode())
