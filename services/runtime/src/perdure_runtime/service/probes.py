"""/metrics, /healthz and /readyz of a service.

They answer on the service's own event loop: a loop that is stuck does not answer, which is the truth.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from perdure_runtime.service.metering import Progress

log = logging.getLogger("perdure.service")

STALL_MAX_S = 60.0
"""Deliveries open for so long while none ends: the process is of no use. An outage hands them back sooner."""
LAG_MAX_S = 5.0
"""A loop that was late by so much a moment ago cannot keep its time-outs."""
_TICK_S = 0.5

_LAG = Gauge("perdure_loop_lag_seconds", "How late the event loop ran, at worst, in the last few seconds.")


class Health:
    """What the probes tell."""

    def __init__(self, progress: Progress, *, runs_user_code: bool = False) -> None:
        """`runs_user_code`: a delivery is open for as long as its task takes, or its answer waits for the broker. To
        restart such a process would end its tasks."""
        self.progress = progress
        self._runs_user_code = runs_user_code
        self.draining = False
        """For good: the process is about to end."""
        self.receiving: Callable[[], bool] = lambda: True
        """Of a worker: whether it takes work, or was told not to."""
        self._lags = [0.0] * 10

    async def measure(self) -> None:
        """Watch the loop until canceled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK_S)
            self._lags = [*self._lags[1:], max(0.0, loop.time() - before - _TICK_S)]
            _LAG.set(max(self._lags))

    def ailments(self) -> list[str]:
        """Why this process should be restarted; nothing: it is well."""
        found = []
        if self.progress.stalled_s() > STALL_MAX_S and not self._runs_user_code:
            found.append(f"no delivery ended for {self.progress.stalled_s():.0f} s, and some are open")
        if max(self._lags) > LAG_MAX_S:
            found.append(f"the event loop was {max(self._lags):.1f} s late")
        return found

    def reasons_to_wait(self) -> list[str]:
        """Why this process should not count as available; nothing: it may."""
        if self.draining or not self.receiving():
            return ["draining"]
        return [] if self.progress.subscribed else ["not subscribed yet"]


@asynccontextmanager
async def probes(
    health: Health, host: str, port: int, routes: Sequence[web.AbstractRouteDef] = ()
) -> AsyncIterator[int]:
    """Serve the probes, and what else there is on their port; yields the port."""
    application = web.Application()
    application.add_routes(routes)
    application.router.add_get("/metrics", _metrics)
    application.router.add_get("/healthz", _asks(health.ailments))
    application.router.add_get("/readyz", _asks(health.reasons_to_wait))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    measuring = asyncio.create_task(health.measure(), name="loop lag")
    try:
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        log.info("probes listen", extra={"action": "probes", "host": host, "port": bound})
        yield bound
    finally:
        measuring.cancel()
        await runner.cleanup()


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _asks(problems_of: Callable[[], list[str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        problems = problems_of()
        return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)

    return answer
