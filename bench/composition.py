"""What is measured: an engine in this process, workers as processes of their own; and a whole `perdure dev`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from perdure import Client
from perdure._client.backend import PortsBackend
from perdure.cli.dev import engine, worker_command
from perdure_runtime.ports import Ports

WORKLOADS = Path(__file__).with_name("workloads.py")
NAMESPACE = "default"


class Site(ABC):
    """Where workers can be added and killed: a client, and the process ids of workers of ours."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.workers: list[int] = []
        self._children: list[asyncio.subprocess.Process] = []

    @abstractmethod
    async def start_worker(self) -> None:
        """Returns when it takes tasks."""

    def add(self, child: asyncio.subprocess.Process) -> None:
        self.workers.append(child.pid)
        self._children.append(child)

    async def stop_workers(self) -> None:
        for child in self._children:
            if child.returncode is None:
                child.terminate()
            await child.wait()


class Bench(Site):
    """A running engine, with a client in its process."""

    def __init__(self, client: Client, database: Path) -> None:
        super().__init__(client)
        self.database = database

    async def start_worker(self) -> None:
        """Returns when it takes tasks."""
        ready_read, ready_write = os.pipe()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *worker_command(str(WORKLOADS), self.database, NAMESPACE, json_logs=False),
            "--ready-fd",
            str(ready_write),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[ready_write],
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        os.close(ready_write)
        await asyncio.to_thread(os.read, ready_read, 1)
        os.close(ready_read)
        self.add(child)


def _client(ports: Ports) -> Client:
    """On the engine's own ports, without a socket between."""
    backend = PortsBackend(NAMESPACE)
    backend.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)
    return Client(backend)


@asynccontextmanager
async def running(database: Path) -> AsyncIterator[Bench]:
    """An engine with one worker."""
    async with engine(database, NAMESPACE) as (_, ports), _client(ports) as client:
        bench = Bench(client, database)
        try:
            await bench.start_worker()
            yield bench
        finally:
            await bench.stop_workers()


@asynccontextmanager
async def ready_dev(database: Path) -> AsyncIterator[None]:
    """`perdure dev`, from its start until its engine answers; its worker may still be starting."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "perdure.cli", "dev", str(WORKLOADS), "--db", str(database)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    assert child.stdout is not None
    try:
        while json.loads(await child.stdout.readline())["event"] != "ready":
            pass
        yield
    finally:
        child.terminate()
        await child.communicate()
