"""A worker with its probe port, and who asks there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from perdure.worker import Worker
from perdure_runtime.ports import Broker
from perdure_runtime.service.metering import MeteredBroker, Progress
from perdure_runtime.service.probes import Health, probes
from perdure_runtime.service.work import work_routes

TOKEN = "secret"
SLOTS = 7
WORK = "load"


class Probes:
    """Of a worker, as who looks after it sees them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str = WORK) -> tuple[int, dict[str, Any]]:
        async with self._session.get(f"{self._url}/{path}") as answer:
            return answer.status, await answer.json()

    async def post(self, action: str, shown: str | None = f"Bearer {TOKEN}") -> tuple[int, dict[str, Any]]:
        headers = {} if shown is None else {"Authorization": shown}
        async with self._session.post(f"{self._url}/{WORK}/{action}", headers=headers) as answer:
            return answer.status, await answer.json()

    async def until(self, in_flight: int) -> dict[str, Any]:
        while (told := (await self.get())[1])["in_flight"] != in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return told


@asynccontextmanager
async def probed(
    broker: Broker, *objects: object, token: str = TOKEN, name: str = "worker-1"
) -> AsyncIterator[tuple[Worker, Probes]]:
    """A worker as `perdure worker` has it, that does not run yet."""
    progress = Progress()
    health = Health(progress, runs_user_code=True)
    worker = Worker(MeteredBroker(broker, progress), objects, slots=SLOTS, worker_id=name, grace_seconds=1)
    health.receiving = lambda: worker.receiving
    routes = work_routes(worker, health, slots=SLOTS, token=token)
    async with probes(health, "127.0.0.1", 0, routes) as port, aiohttp.ClientSession() as session:
        yield worker, Probes(session, f"http://127.0.0.1:{port}")
