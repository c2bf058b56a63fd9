"""The operator, until SIGTERM: `perdure-operator`."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import kopf
from pydantic import ValidationError

from perdure_operator.api import HttpPerdure
from perdure_operator.claims import Claims
from perdure_operator.connecting import Connections
from perdure_operator.health import Health, probes
from perdure_operator.kubernetes import ALL_NAMESPACES, LightkubeCluster, open_cluster
from perdure_operator.lease import Lease, Lost
from perdure_operator.logs import log_json
from perdure_operator.reconcile import Reconciler
from perdure_operator.settings import OperatorSettings
from perdure_operator.watching import Seen, kopf_settings, list_again, registry, wake
from perdure_operator.workers import HttpWorkers
from perdure_operator.working import Working

log = logging.getLogger("perdure.operator")

EXIT_SETTINGS = 78
"""EX_CONFIG of sysexits.h: restarting will not help."""


def main() -> None:
    """Entry point."""
    try:
        settings = OperatorSettings.model_validate({})
    except ValidationError as error:
        for mistake in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part).upper() for part in mistake["loc"])
            sys.stderr.write(f"PERDURE_OPERATOR_{name}: {mistake['msg']}\n")
        raise SystemExit(EXIT_SETTINGS) from None
    log_json(settings.instance, settings.log_level)
    asyncio.run(_lead(settings))


async def _lead(settings: OperatorSettings) -> None:
    health = Health(time.monotonic)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(probes(health, settings.probe_host, settings.probe_port))
        cluster = await open_things.enter_async_context(open_cluster())
        session = await open_things.enter_async_context(aiohttp.ClientSession())
        keeping: list[Coroutine[Any, Any, None]] = []
        if settings.replicas > 1:
            lease = Lease(cluster, settings.lease_namespace, settings.instance, time.monotonic)
            await lease.acquire()
            open_things.push_async_callback(lease.release)
            keeping.append(lease.keep())
        health.leads = True
        await _work([*_parts(settings, health, cluster, session), *keeping])


def _parts(
    settings: OperatorSettings, health: Health, cluster: LightkubeCluster, session: aiohttp.ClientSession
) -> Sequence[Coroutine[Any, Any, None]]:
    """kopf first: its end is the end of all."""

    def open_api(url: str, namespace: str, token: str) -> HttpPerdure:
        return HttpPerdure(session, url, namespace, token)

    connections = Connections(cluster, open_api, time.monotonic)
    followed = settings.namespace or ALL_NAMESPACES
    claims = Claims(cluster, connections, followed)
    reconciler = Reconciler(cluster, connections, claims, HttpWorkers(session), now=time.time)
    working = Working(reconciler.reconcile, settings.concurrency, random.Random())
    seen = Seen()
    watching = kopf.operator(
        registry=registry(working, connections, seen, health),
        settings=kopf_settings(),
        standalone=True,
        clusterwide=not settings.namespace,
        namespaces=[settings.namespace] if settings.namespace else [],
    )
    return [
        watching,
        working.run(),
        list_again(cluster, followed, working, seen, health=health),
        wake(reconciler.pools, working),
    ]


async def _work(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Until the first ends, which is told by a signal; raises what ended another, which none should."""
    running = [asyncio.create_task(part) for part in parts]
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    for task in done:
        if isinstance(error := task.exception(), Lost):
            log.error("no longer leading", extra={"action": "lease_lost", "error": str(error)})
            raise SystemExit(1)
        task.result()
    log.info("ended", extra={"action": "ended"})


if __name__ == "__main__":
    main()
