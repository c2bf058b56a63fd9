"""Two builds of one workflow, a worker process of each, on services that are processes: pinned runs stay on theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import Client, Handle
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.ports import Ports, Routing
from perdure_schemas.events import TurnCommitted
from tests.servers import clean
from tests.servers.local import answers
from tests.servers.provision import free_port
from tests.servers.replicas import NAMESPACE, replicas, service

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]
_SERVICES = ("workflow_engine", "workflow_engine", "task_engine", "timer", "projector", "api")
_APP = """
from perdure import Channel, task, workflow

@task
async def charge() -> None:
    pass

@workflow
class order:
    go: Channel[None] = Channel()

    async def run(self) -> str:
        await charge()
        await self.go.receive()
        return "{build}"
"""


@asynccontextmanager
async def _deployed(tmp_path: Path) -> AsyncIterator[tuple[Client, Ports, PulsarSettings]]:
    settings, port = clean.pulsar_settings(), free_port()
    async with AsyncExitStack() as stack:
        (ports,) = await stack.enter_async_context(replicas(1, settings))
        for number, role in enumerate(_SERVICES):
            given = {"PERDURE_API_PORT": str(port)}
            stack.enter_context(service(role, settings, tmp_path / f"{role}.log", number, given=given))
        url = f"http://127.0.0.1:{port}"
        while not await asyncio.to_thread(answers, f"{url}/api/v1/openapi.json"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        client = await stack.enter_async_context(Client.connect(url))
        yield client, ports, settings


@contextmanager
def _worker(build: str, settings: PulsarSettings, folder: Path) -> Iterator[None]:
    app = folder / f"app_{build}.py"
    app.write_text(_APP.replace("{build}", build))
    environment = {
        **os.environ, "PERDURE_BUILD": build, "PERDURE_PROBE_PORT": "0", "PERDURE_PULSAR_URL": settings.url,
        "PERDURE_PULSAR_TENANT": settings.tenant, "PYTHONHASHSEED": "0",
    }  # fmt: skip
    with (folder / f"worker-{build}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "worker", str(app)], env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _at(run: Handle[Any]) -> str:
    """The build that has begun on a run, once its first task is done."""
    while True:
        history = await run.history()
        done = [record.event.build for record in history if isinstance(record.event, TurnCommitted)]
        if len(done) >= 2:
            assert len(set(done)) == 1
            return done[0]
        await asyncio.sleep(0.05)


async def test_a_run_stays_on_the_build_it_began_on_though_all_workers_of_it_were_away(tmp_path: Path) -> None:
    async with asyncio.timeout(300), _deployed(tmp_path) as (client, ports, settings):
        await ports.routing.put(NAMESPACE, "order", Routing(current="one"))
        with _worker("two", settings, tmp_path):
            with _worker("one", settings, tmp_path):
                old = await client.start("order", id="old")
                assert await _at(old) == "one"
            await ports.routing.put(NAMESPACE, "order", Routing(current="two"))
            await asyncio.sleep(1.5)  # engines ask for the routing once a second
            new = await client.start("order", id="new")
            assert await _at(new) == "two"
            for run in (old, new):
                await run.signal("go", None)
            assert await new.result() == "two"
            with _worker("one", settings, tmp_path):
                assert await old.result() == "one"
