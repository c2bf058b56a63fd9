"""The whole of Perdure in this process: engines on memory or SQLite, a worker, and the client's backend on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from perdure._client.backend import PortsBackend
from perdure._payloads.blobs import StoreBlobs
from perdure._replay import guard
from perdure._replay.guard import seeds
from perdure.payloads import Payloads
from perdure.registry import Registry
from perdure.worker import SLOTS, Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Ports
from perdure_schemas.messages import Message

_log = logging.getLogger("perdure.client")

GRACE_SECONDS = 5.0
"""For attempts under way when the client closes on a file: the program ends soon, and the file has them again."""


class EmbeddedBackend(PortsBackend):
    """Starts everything when it opens, and stops it when it closes."""

    def __init__(
        self,
        objects: Sequence[object],
        *,
        db: str | Path,
        services: Sequence[object],
        namespace: str,
        slots: int | None,
        worker: bool,
        payloads: Payloads | None = None,
        survive_power_loss: bool = False,
    ) -> None:
        """Raises DefinitionError if `objects` are no app."""
        super().__init__(namespace)
        self._db = db
        self._survive_power_loss = survive_power_loss
        self._slots = slots or SLOTS
        self._payloads = payloads
        self.registry = Registry(objects, services) if worker else None
        self._stack = AsyncExitStack()

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        """Raises PerdureError, and makes nothing, if the runs of the file could not go on in another process."""
        if self.registry is not None and self.registry.workflows and self._db != ":memory:":
            seeds.refuse_if_random(guard.mode_of(None))
        async with AsyncExitStack() as stack:
            ports = await self._ports(stack)
            await stack.enter_async_context(Embedded(ports, self.namespace))
            if self.registry is not None:
                await self._start_worker(ports, self.registry, stack)
            self.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)
            await super().open(client_id, deliver)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()

    async def _ports(self, stack: AsyncExitStack) -> Ports:
        clock = SystemClock()
        if self._db == ":memory:":
            return memory_ports(clock)
        opened = await open_sqlite(self._db, clock, survive_power_loss=self._survive_power_loss)
        stack.push_async_callback(opened.close)
        return opened.ports

    async def _start_worker(self, ports: Ports, registry: Registry, stack: AsyncExitStack) -> None:
        worker = Worker(
            ports.broker,
            registry,
            namespace=self.namespace,
            slots=self._slots,
            grace_seconds=GRACE_SECONDS,
            payloads=self._payloads,
            blobs=StoreBlobs(ports.blobs, self.namespace),
        )
        running = asyncio.create_task(worker.run(), name="perdure worker")
        stack.push_async_callback(self._stop_worker, worker, running)
        ready = asyncio.ensure_future(worker.ready.wait())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            await running
        running.add_done_callback(_report)

    async def _stop_worker(self, worker: Worker, running: asyncio.Task[None]) -> None:
        if self._db == ":memory:":
            running.cancel()  # nobody will see what its attempts still do
        else:
            worker.drain()
        await asyncio.wait([running])


def _report(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        _log.error("the worker has stopped", exc_info=error)
