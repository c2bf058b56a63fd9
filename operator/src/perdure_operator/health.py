"""/metrics, /healthz and /readyz of the operator."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

log = logging.getLogger("perdure.operator")

SILENT_MAX_S = 300.0
"""Lists are asked for every minute, whether or not they are answered: a loop that has not come by for so long hangs."""
DEAF_MAX_S = 180.0
"""For so long lists found resources of which no watch told: kopf restarts its watches within 70 s."""

_HEARD = Gauge("perdure_operator_event_age_seconds", "Since a watch last told of something.")
_MISSED = Gauge("perdure_operator_missed_resources", "Resources that a list found and no watch told of for a minute.")
_LEADS = Gauge("perdure_operator_leads", "1: this process leads. 0: it waits for the Lease.")


class Health:
    """What the probes tell. kopf's own probe tells that its server runs, not that its watches do."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heard = self._listed = now()
        self._deaf_since: float | None = None
        self.leads = False
        _HEARD.set_function(lambda: self._now() - self._heard)
        _LEADS.set_function(lambda: float(self.leads))

    def heard(self) -> None:
        """A watch told something."""
        self._heard = self._now()

    def listed(self, missed: int | None) -> None:
        """A round of lists ended. `missed`: what no watch told of for a whole round; None: there was no answer."""
        self._listed = self._now()
        if missed is None:
            return
        _MISSED.set(missed)
        if missed == 0:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = self._now()

    def ailments(self) -> list[str]:
        """Why this process should be restarted; nothing: it is well."""
        if not self.leads:
            return []
        found = []
        if (silent := self._now() - self._listed) > SILENT_MAX_S:
            found.append(f"resources were last listed {silent:.0f} s ago")
        if self._deaf_since is not None and (deaf := self._now() - self._deaf_since) > DEAF_MAX_S:
            found.append(f"watches have missed changes for {deaf:.0f} s")
        return found


@asynccontextmanager
async def probes(health: Health, host: str, port: int) -> AsyncIterator[int]:
    """Serve the probes; yields the port."""

    async def healthz(_: web.Request) -> web.Response:
        problems = health.ailments()
        return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ok": True, "leads": health.leads})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        log.info("probes listen", extra={"action": "probes", "host": host, "port": bound})
        yield bound
    finally:
        await runner.cleanup()
