"""A worker: runs the workflows and tasks of an app.

worker = Worker.connect(".perdure/dev.sqlite", [my_app])
await worker.run()
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Self
from uuid import uuid4

from perdure._engines import Elsewhere, Engine
from perdure._ids import IdSource
from perdure._payloads.blobs import Blobs
from perdure._payloads.broker import CodedBroker
from perdure._payloads.edge import Edge
from perdure._replay import guard as _guard
from perdure._replay.guard import seeds
from perdure._replay.guard.reports import Mode as Guard
from perdure._worker.live import CACHE_BYTES
from perdure._worker.messaging import Session, Setup
from perdure._worker.task_time import TaskTime
from perdure.convert import OFFLOAD_ABOVE_BYTES
from perdure.errors import Unavailable
from perdure.payloads import Payloads
from perdure.registry import Registry
from perdure_runtime.clock import SystemClock
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Broker, Clock

_log = logging.getLogger("perdure.worker")

SLOTS = 100
"""Attempts at a time. Async tasks mostly wait; whoever computes sets fewer."""
GRACE_SECONDS = 30.0
"""Kubernetes gives a pod as much between SIGTERM and SIGKILL."""


class Worker:
    """Runs turns of workflows and attempts of tasks until it is drained."""

    def __init__(
        self,
        broker: Broker | Elsewhere,
        objects: Registry | Iterable[object] = (),
        *,
        services: Iterable[object] = (),
        namespace: str = "default",
        build: str = "dev",
        slots: int = SLOTS,
        clock: Clock | None = None,
        worker_id: str | None = None,
        ids: Callable[[], str] | None = None,
        inline_turns: bool = False,
        cache_bytes: int = CACHE_BYTES,
        grace_seconds: float = GRACE_SECONDS,
        guard: Guard | None = None,
        payloads: Payloads | None = None,
        blobs: Blobs | None = None,
        offload_above: int = OFFLOAD_ABOVE_BYTES,
        async_time: TaskTime | None = None,
    ) -> None:
        """Programs use `Worker.connect`. Nothing happens before `run`.

        Args:
            broker: where work comes from.
            objects: a Registry, or modules, tasks and workflows as it takes them.
            services: implementations of services.
            build: what this worker's code is called; runs pinned to it come here.
            slots: attempts of tasks at a time.
            worker_id: names this worker among all; made up unless given.
            ids: makes message ids; for simulations.
            inline_turns: run all user code on the calling loop, without threads: for simulations.
            cache_bytes: what live runs may weigh together.
            grace_seconds: what `drain` gives to work in progress.
            guard: what happens when workflow code does what would come out differently in replay: "error", "warn" (in
                the log) or "off". "error" unless the environment variable PERDURE_GUARD says otherwise.
            payloads: how payloads are compressed and encrypted; those of PERDURE_PAYLOAD_KEYS_FILE unless given.
            blobs: where values that are too large for a message are; that of an engine elsewhere is known without.
            offload_above: bytes above which a value is too large; less for simulations.
            async_time: what async tasks live in; for tests.

        Raises:
            DefinitionError: two definitions have one name, an object is neither task nor workflow, or a workflow's code
                would come out differently in replay.
        """
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        registry = objects if isinstance(objects, Registry) else Registry(objects)
        for implementation in services:
            registry.add_service(implementation)
        for told in registry.overlooked():
            _log.warning("%s", told, extra={"action": "service_not_implemented"})
        self._guard: Guard = _guard.mode_of(guard)
        _guard.check(self._guard, registry.workflows.values())
        self._blob_ids = ids or (lambda: uuid4().hex)
        ids = ids or IdSource()
        self.id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{ids()[-8:]}"
        self._grace_seconds = grace_seconds
        self._broker = broker
        self._payloads = payloads or Payloads.from_environment()
        self._blobs = blobs
        self._offload_above = offload_above
        self._registry = registry
        self._namespace = namespace
        self._setup = partial(
            Setup,
            registry=registry,
            clock=clock or SystemClock(),
            ids=ids,
            namespace=namespace,
            build=build,
            worker=self.id,
            slots=slots,
            inline_turns=inline_turns,
            cache_bytes=cache_bytes,
            async_time=async_time,
            tells_values=self._payloads is None or not self._payloads.current,
        )
        self._draining: asyncio.Event | None = None
        self._paused = False
        self._session: Session | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.ready = asyncio.Event()
        """Set once the worker has subscribed: what is sent from then on reaches it."""

    @classmethod
    def connect(
        cls,
        target: str | Path,
        objects: Registry | Iterable[object] = (),
        *,
        services: Iterable[object] = (),
        namespace: str = "default",
        build: str = "dev",
        slots: int = SLOTS,
        grace_seconds: float = GRACE_SECONDS,
        guard: Guard | None = None,
        payloads: Payloads | None = None,
    ) -> Self:
        """A worker of engines elsewhere: of a `perdure dev` on this machine, or of a cluster. `run` connects it.

        Args:
            target: the path of a database or socket, or `pulsar://…`; tenant, credentials and TLS of a cluster are
                the settings of `perdure worker`, from the environment.
            objects: modules, tasks and workflows that it runs.
            services: implementations of services.
            build: what this worker's code is called; runs pinned to it come here.
            slots: attempts of tasks at a time.
            grace_seconds: what `drain` gives to work in progress.
            guard: what happens when workflow code does what would come out differently in replay: "error", "warn" (in
                the log) or "off". "error" unless the environment variable PERDURE_GUARD says otherwise.
            payloads: as for `Client.connect`: the keys of the clients.

        Raises:
            DefinitionError: two definitions have one name, an object is neither task nor workflow, or a workflow's code
                would come out differently in replay.
        """
        worker = cls(
            Elsewhere(target, namespace), objects, services=services, namespace=namespace, build=build, slots=slots,
            grace_seconds=grace_seconds, guard=guard, payloads=payloads,
        )  # fmt: skip
        if worker._registry.workflows:
            seeds.warn_if_random()
        return worker

    async def run(self) -> None:
        """Work until `drain`. When canceled it stops at once, and its work goes to other workers.

        Raises:
            Unavailable: a worker that `connect` made finds nobody there. Later it waits for them to come back.
            NotInstalled: to work for a cluster needs the extra `cluster`.
            Exception: a defect of the worker's own; it has then stopped.
        """
        _guard.install(self._guard, self._registry.workflows.values())
        self._draining = asyncio.Event()
        try:
            async with self._opened() as engine:
                await self._work(engine, self._draining)
        finally:
            self._draining = None
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    def _opened(self) -> AbstractAsyncContextManager[Engine]:
        if isinstance(self._broker, Elsewhere):
            return self._broker.opened()
        return nullcontext(Engine(self._broker, self._blobs))

    async def _work(self, engine: Engine, draining: asyncio.Event) -> None:
        edge = Edge(
            self._payloads, self._namespace, lambda: engine.blobs, above=self._offload_above, new_id=self._blob_ids
        )
        setup = self._setup(broker=CodedBroker(engine.broker, edge), seal=edge.seal, opener=edge.open)
        self._session = session = Session(setup, paused=self._paused)
        try:
            await session.open()
            self.ready.set()
            await self._until_drained(session, draining)
        finally:
            self.ready.clear()
            self._session = None
            await session.close()

    async def _until_drained(self, session: Session, draining: asyncio.Event) -> None:
        drained = asyncio.ensure_future(draining.wait())
        broken = asyncio.ensure_future(session.failed())
        try:
            await asyncio.wait([drained, broken], return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                await broken
            broken.cancel()
            await session.stop_receiving()
            await session.finish(self._grace_seconds)
        finally:
            drained.cancel()
            broken.cancel()

    @property
    def receiving(self) -> bool:
        """Whether it takes work, or will once it runs: it is neither paused nor draining."""
        return not self._paused and (self._draining is None or not self._draining.is_set())

    async def pause(self) -> None:
        """Take no more work until `resume`: what this worker has not received yet goes to others at once.

        What is in progress goes on, however long it takes. May be repeated.
        """
        self._paused = True
        if self._session is not None:
            await self._session.pause()

    async def resume(self) -> None:
        """Take work again. May be repeated; a worker that drains stays as it is.

        Raises:
            Unavailable: the broker is away; the worker is paused as before.
        """
        if self._draining is not None and self._draining.is_set():
            return
        if self._session is not None:
            try:
                await self._session.resume()
            except StorageUnavailable as error:
                raise Unavailable(str(error)) from error
        self._paused = False

    def drain(self) -> asyncio.Future[None]:
        """Take no more work, finish what is in progress within the grace period, hand back the rest.

        It is enough to call it, as a signal handler does; to await what it returns is to wait until `run` is over.
        """
        ended = asyncio.get_running_loop().create_future()
        if self._draining is None:
            ended.set_result(None)
        else:
            self._draining.set()
            self._waiting.append(ended)
        return ended
