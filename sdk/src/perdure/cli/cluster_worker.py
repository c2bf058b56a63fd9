"""`perdure worker`: a worker of a cluster, the main process of a user's image."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure import _app
from perdure._engines import blobs_by_api
from perdure._extras import needed
from perdure.registry import Registry

if TYPE_CHECKING:
    from perdure.worker import Worker
    from perdure_runtime.service.probes import Health
    from perdure_runtime.service.settings import WorkerSettings

log = logging.getLogger("perdure.worker")


def worker(
    app: Annotated[str, typer.Argument(metavar="APP", help="app.py, or package.module", envvar="PERDURE_APP")],
) -> None:
    """Run the workflows and tasks of APP on a cluster, until SIGTERM. Settings are environment variables PERDURE_…"""
    from perdure._worker.process import pin_hash_seed

    pin_hash_seed(["-m", "perdure.cli", *sys.argv[1:]])
    with needed("cluster", "perdure worker"):
        import perdure_runtime.service.probes  # noqa: F401 `_work` wants it, when it is too late for a clear word
        from perdure_runtime.service.logs import log_json
        from perdure_runtime.service.settings import WorkerSettings, read_settings

    settings = read_settings(WorkerSettings)
    log_json("worker", settings.instance, settings.log_level)
    registry = _chosen(Registry([_app.load(app)]), settings)
    asyncio.run(_work(registry, settings))


def _chosen(registry: Registry, settings: WorkerSettings) -> Registry:
    """What the settings name of it; ends the process with one line if that is not there."""
    from perdure_runtime.service.settings import EXIT_SETTINGS

    if not settings.tasks and not settings.workflows:
        return registry
    try:
        return registry.only(settings.tasks, settings.workflows)
    except LookupError as error:
        sys.stderr.write(f"{error.args[0]} (PERDURE_TASKS, PERDURE_WORKFLOWS)\n")
        raise SystemExit(EXIT_SETTINGS) from None


async def _tell_once_ready(worker: Worker, build: str) -> None:
    await worker.ready.wait()
    log.info("ready", extra={"action": "ready", "worker": worker.id, "build": build})


async def _work(registry: Registry, settings: WorkerSettings) -> None:
    from perdure.worker import Worker
    from perdure_runtime.adapters.pulsar import PulsarBroker
    from perdure_runtime.service.metering import MeteredBroker, Progress
    from perdure_runtime.service.probes import Health, probes
    from perdure_runtime.service.work import work_routes

    build, token = settings.build, settings.token.get_secret_value()
    progress = Progress()
    health = Health(progress, runs_user_code=True)
    broker = PulsarBroker(settings.pulsar())
    try:
        async with blobs_by_api(settings.url, settings.namespace, token) as blobs:
            worker = Worker(
                MeteredBroker(broker, progress), registry, namespace=settings.namespace, build=build,
                slots=settings.slots, grace_seconds=settings.grace_seconds, blobs=blobs,
            )  # fmt: skip
            if settings.deletion_cost:
                log.info("begins drained", extra={"action": "begins_drained", "worker": worker.id})
                await worker.pause()
            health.receiving = lambda: worker.receiving
            routes = work_routes(worker, health, slots=settings.slots, token=token)
            async with probes(health, settings.probe_host, settings.probe_port, routes):
                log.info("started", extra={"action": "started", "worker": worker.id, "build": build})
                await _run(worker, health, build)
    finally:
        await broker.close()


async def _run(worker: Worker, health: Health, build: str) -> None:
    def drain() -> None:
        health.draining = True
        worker.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, drain)
    telling = asyncio.create_task(_tell_once_ready(worker, build))
    try:
        await worker.run()
    finally:
        telling.cancel()
