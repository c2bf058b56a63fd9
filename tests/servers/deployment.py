"""A cluster as it is deployed: every service and worker a process of its own, on the session's servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from perdure import Client
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.ports import Ports
from tests.servers import clean
from tests.servers.local import answers
from tests.servers.provision import free_port
from tests.servers.replicas import replicas, service

SERVICES = ("workflow_engine", "workflow_engine", "task_engine", "timer", "projector", "api")
_AS_DEPLOYED: Mapping[str, str] = {}


@asynccontextmanager
async def deployed(
    folder: Path, services: Sequence[str] = SERVICES
) -> AsyncIterator[tuple[Client, Ports, PulsarSettings]]:
    """A client of the API, ports for a look behind it, and where topics are; logs are in the folder."""
    settings, port = clean.pulsar_settings(), free_port()
    async with AsyncExitStack() as stack:
        (ports,) = await stack.enter_async_context(replicas(1, settings))
        for number, role in enumerate(services):
            given = {"PERDURE_API_PORT": str(port)}
            stack.enter_context(service(role, settings, folder / f"{role}.log", number, given=given))
        url = f"http://127.0.0.1:{port}"
        while not await asyncio.to_thread(answers, f"{url}/api/v1/openapi.json"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield await stack.enter_async_context(Client.connect(url)), ports, settings


@contextmanager
def worker(
    app: Path, settings: PulsarSettings, log: Path, *, given: Mapping[str, str] = _AS_DEPLOYED
) -> Iterator[subprocess.Popen[bytes]]:
    """`perdure worker` with an app; killed in the end. `given`: environment variables that differ."""
    environment = {
        **os.environ, "PERDURE_PROBE_PORT": "0", "PERDURE_PULSAR_URL": settings.url,
        "PERDURE_PULSAR_ADMIN_URL": settings.admin_url, "PERDURE_PULSAR_TENANT": settings.tenant,
        "PYTHONHASHSEED": "0", **given,
    }  # fmt: skip
    command = [sys.executable, "-m", "perdure.cli", "worker", str(app)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
