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

if TYPE_CHECKING:
    from perdure.worker import Worker
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
    module = _app.load(app)
    asyncio.run(_work(module, settings))


async def _tell_once_ready(worker: Worker, build: str) -> None:
    await worker.ready.wait()
    log.info("ready", extra={"action": "ready", "worker": worker.id, "build": build})


async def _work(module: object, settings: WorkerSettings) -> None:
    from perdure.worker import Worker
    from perdure_runtime.adapters.pulsar import PulsarBroker
    from perdure_runtime.service.metering import MeteredBroker, Progress
    from perdure_runtime.service.probes import Health, probes

    build, token = settings.build, settings.token.get_secret_value()
    progress = Progress()
    health = Health(progress, runs_user_code=True)
    broker = PulsarBroker(settings.pulsar())
    try:
        async with (
            probes(health, settings.probe_host, settings.probe_port),
            blobs_by_api(settings.url, settings.namespace, token) as blobs,
        ):
            worker = Worker(
                MeteredBroker(broker, progress), [module], namespace=settings.namespace, build=build,
                slots=settings.slots, grace_seconds=settings.grace_seconds, blobs=blobs,
            )  # fmt: skip

            def drain() -> None:
                health.draining = True
                worker.drain()

            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, drain)
            log.info("started", extra={"action": "started", "worker": worker.id, "build": build})
            telling = asyncio.create_task(_tell_once_ready(worker, build))
            try:
                await worker.run()
            finally:
                telling.cancel()
    finally:
        await broker.close()
