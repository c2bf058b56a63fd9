"""Two builds of one workflow, a worker process of each, on services that are processes: pinned runs stay on theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import Handle
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.ports import Routing
from perdure_schemas.events import TurnCommitted
from tests.servers.deployment import deployed, worker
from tests.servers.replicas import NAMESPACE

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]
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


@contextmanager
def _worker(build: str, settings: PulsarSettings, folder: Path) -> Iterator[None]:
    app = folder / f"app_{build}.py"
    app.write_text(_APP.replace("{build}", build))
    with worker(app, settings, folder / f"worker-{build}.log", given={"PERDURE_BUILD": build}):
        yield


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
    async with asyncio.timeout(300), deployed(tmp_path) as (client, ports, settings):
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
