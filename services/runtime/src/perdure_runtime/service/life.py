"""From start to drain: the same for every service."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from perdure_runtime.collecting import collect_rarely
from perdure_runtime.ports import Ports
from perdure_runtime.service.cluster import open_cluster
from perdure_runtime.service.logs import log_json
from perdure_runtime.service.metering import Progress
from perdure_runtime.service.probes import Health, probes
from perdure_runtime.service.settings import BrokerSettings, ServiceSettings, read_settings

log = logging.getLogger("perdure.service")

_S = TypeVar("_S", bound=ServiceSettings)
Engines = Callable[[Ports, _S], Sequence[Coroutine[Any, Any, None]]]
"""Makes what the service runs, each until it is canceled."""


def run_service(name: str, engines: Engines[_S], kind: type[_S]) -> None:
    """Entry point of a service: read settings, connect, work until SIGTERM, drain."""
    settings = read_settings(kind)
    log_json(name, settings.instance, settings.log_level)
    asyncio.run(_serve(name, settings, engines))


async def _serve(name: str, settings: _S, engines: Engines[_S]) -> None:
    progress = Progress()
    health = Health(progress)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(probes(health, settings.probe_host, settings.probe_port))
        ports = await open_things.enter_async_context(open_cluster(settings, progress))
        collect_rarely()
        log.info("started", extra={"action": "started", "namespace": settings.namespace, "service_name": name})
        await work_until_told(engines(ports, settings), health, settings)
        log.info("drained", extra={"action": "drained"})


async def work_until_told(
    engines: Sequence[Coroutine[Any, Any, None]], health: Health, settings: BrokerSettings
) -> None:
    """Until SIGTERM or SIGINT, which drains; raises what ended an engine, which none should.

    To drain is to cancel: an engine then ends what is between its commit and its acknowledgement, and hands back the
    rest at once.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.create_task(told.wait(), name="signal")
    running = [asyncio.create_task(engine) for engine in engines]
    done, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    health.draining = True
    for task in (waiting, *running):
        task.cancel()
    await asyncio.wait([waiting, *running], timeout=settings.grace_seconds)
    for task in done - {waiting}:
        task.result()
