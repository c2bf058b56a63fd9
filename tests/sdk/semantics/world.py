"""A whole Perdure in one process whose parts can be killed and watched one by one, in memory or on real servers.

`World` runs the real engines, a real worker and a client on ports that tests may tamper with. Where no part has to
be killed or watched, tests use `Client.embedded` itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

from perdure import Client, Handle, Registry
from perdure._client.backend import PortsBackend
from perdure._payloads.backend import coded
from perdure._payloads.blobs import StoreBlobs
from perdure.worker import Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.queues import QueuePublisher
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Broker, Consumer, Ports, Publisher, SubscriptionType
from perdure_schemas.common import Command
from perdure_schemas.events import Event, Recorded, RunStatus, TurnCommitted
from perdure_schemas.messages import Body, Message, RunChanged, RunPurged

B = TypeVar("B")
E = TypeVar("E")

CALM_PASSES = 40
"""Of the loop: many times what a step takes that waits for no other thread."""
PATIENCE_SECONDS = 60
"""Of a whole test, on a loaded machine; each takes a fraction of a second."""

Batch: TypeAlias = Sequence[tuple[str, Message]]
Tamper: TypeAlias = Callable[[Batch], Batch]


class Place(Protocol):
    """Where worlds run."""

    patience_seconds: int
    pause_seconds: float
    """In which, if anything is going on, something is published."""

    def __call__(self) -> AbstractAsyncContextManager[Sequence[Ports]]:
        """The ports of each replica of the engines; the first are the worker's and the client's as well."""
        ...

    async def publish_bytes(self, ports: Ports, topic: str, key: str, data: bytes) -> None:
        """Bytes as anybody could send them, who need not know the contract."""
        ...


class Memory:
    patience_seconds = PATIENCE_SECONDS
    pause_seconds = 0.02

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Sequence[Ports]]:
        yield [memory_ports(SystemClock())]

    async def publish_bytes(self, ports: Ports, topic: str, key: str, data: bytes) -> None:
        publisher = ports.broker.publisher()
        assert isinstance(publisher, QueuePublisher)
        await publisher.publish_encoded("default", [(topic, key, data)])


class World:
    """Opened by `async with`: engines, one worker and a client."""

    place: ClassVar[Place] = Memory()

    ports: Ports
    spy: Spy

    def __init__(self, *objects: object, ports: Ports | None = None, tamper: Tamper | None = None) -> None:
        """`tamper` changes what is published: each batch, before the broker has it."""
        self._given = ports
        self._tamper = tamper
        self._replicas: Sequence[Ports] = ()
        self._registry = Registry(objects)
        self._engines: list[Embedded] = []
        self._worker: asyncio.Task[None] | None = None
        self._deadline = asyncio.timeout(self.place.patience_seconds)
        self._stack = AsyncExitStack()
        self._backend = PortsBackend("default")
        self.client = Client(coded(self._backend, None))

    async def __aenter__(self) -> Self:
        replicas = [self._given] if self._given is not None else await self._stack.enter_async_context(self.place())
        self.ports = replicas[0]
        self.spy = Spy(self.ports.broker, self._tamper)
        spied = [self.spy, *(self.spy.beside(each.broker) for each in replicas[1:])]
        self._replicas = [dataclasses.replace(each, broker=spy) for each, spy in zip(replicas, spied, strict=True)]
        self._backend.use(self.spy, self.ports.read_model, self.ports.store, blobs=self.ports.blobs)
        await self._deadline.__aenter__()
        await self.start_engine()
        await self.start_worker()
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)
        await self.kill_worker()
        await self.kill_engine()
        try:
            await self._deadline.__aexit__(kind, error, trace)
        finally:
            await self._stack.aclose()

    async def start_worker(self) -> None:
        worker = Worker(self.spy, self._registry, blobs=StoreBlobs(self.ports.blobs, "default"))
        self._worker = asyncio.create_task(worker.run())
        await worker.ready.wait()

    async def kill_worker(self) -> None:
        """All it holds in memory is gone; what it had not answered goes to the next one."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
            self._worker = None

    async def kill_engine(self) -> None:
        """All its replicas."""
        for engine in self._engines:
            await engine.__aexit__(None, None, None)
        self._engines = []

    async def start_engine(self) -> None:
        for number, ports in enumerate(self._replicas):
            engine = Embedded(ports, owner=f"embedded-{number}")
            await engine.__aenter__()
            self._engines.append(engine)

    async def restart_worker(self) -> None:
        await self.kill_worker()
        await self.start_worker()

    async def send(self, topic: str, body: Body, key: str, *, id: str = "by-hand") -> None:
        """A message as anybody could send it."""
        message = Message(id=id, namespace="default", key=key, at=self.ports.clock.now(), body=body)
        await self.ports.broker.publisher().publish([(topic, message)])

    async def quiet(self) -> None:
        """Until nothing more is published, and the read model knows what was."""
        seen = -1
        while seen != len(self.spy.published):
            seen = len(self.spy.published)
            await asyncio.sleep(self.place.pause_seconds)
            for _ in range(CALM_PASSES):  # where the process stood still, the pause is over before anybody could act
                await asyncio.sleep(0)
        purged = {body.run_id for body in self.spy.bodies(RunPurged)}
        newest = {change.run_id: change for change in self.spy.bodies(RunChanged)}
        for change in newest.values():
            while change.run_id not in purged and not await self._knows(change):  # noqa: ASYNC110
                await asyncio.sleep(self.place.pause_seconds)

    async def _knows(self, change: RunChanged) -> bool:
        found = await self.ports.read_model.get_run("default", change.workflow_id, change.run_id)
        return found is not None and found.version >= change.version


class Spy:
    """A broker that remembers what was published through it, and lets a test tamper with it."""

    def __init__(self, broker: Broker, tamper: Tamper | None) -> None:
        self._broker = broker
        self.tamper = tamper
        self.published: list[tuple[str, Message]] = []
        self._first = self

    def beside(self, broker: Broker) -> Spy:
        """What another replica publishes is remembered, and tampered with, as one."""
        spy = Spy(broker, None)
        spy._first = self
        return spy

    def publisher(self) -> Publisher:
        return SpyPublisher(self._first, self._broker.publisher())

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> Consumer:
        return await self._broker.subscribe(namespace, topics, subscription, type)

    def bodies(self, kind: type[B]) -> list[B]:
        return [message.body for _, message in self.published if isinstance(message.body, kind)]


class SpyPublisher:
    def __init__(self, spy: Spy, publisher: Publisher) -> None:
        self._spy = spy
        self._publisher = publisher

    async def publish(self, batch: Batch) -> None:
        if self._spy.tamper is not None:
            batch = self._spy.tamper(batch)
        self._spy.published += batch
        await self._publisher.publish(batch)

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        await self._publisher.publish_raw(topic, namespace, data, reason)


class Gate:
    """Holds tasks up, and tells when one has come to it. Tasks run on a loop of their own, tests on another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._arrivals: asyncio.Queue[Any] = asyncio.Queue()
        self._open = False

    async def passed(self, what: Any = None) -> None:
        """Called in a task: tell, and wait until the gate is open."""
        opened = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), opened))
        self._loop.call_soon_threadsafe(self._arrivals.put_nowait, what)
        if not self._open:
            await opened.wait()

    def tell(self, what: Any = None) -> None:
        """Called in a task, on any thread: only tell."""
        self._loop.call_soon_threadsafe(self._arrivals.put_nowait, what)

    async def reached(self) -> Any:
        """Called in a test: the next arrival."""
        return await self._arrivals.get()

    def open(self) -> None:
        self._open = True
        for loop, opened in self._waiting:
            if not loop.is_closed():  # its worker was killed
                loop.call_soon_threadsafe(opened.set)
        self._waiting.clear()


async def until(holds: Callable[[], bool]) -> None:
    """Look now and then."""
    while not holds():  # noqa: ASYNC110  what is looked at tells nobody
        await asyncio.sleep(0.001)


async def described(run: Handle[Any], status: RunStatus) -> RunChanged:
    """The run as clients see it, once its status is this."""
    while (found := await run.describe()).status != status:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return found


def events(history: Sequence[Recorded], kind: type[E]) -> Iterator[E]:
    """Those of one kind."""
    return (record.event for record in history if isinstance(record.event, kind))


def commands(history: Sequence[Recorded]) -> list[Command]:
    """What the run's turns issued."""
    return [command for turn in events(history, TurnCommitted) for command in turn.commands]


def kinds(history: Sequence[Recorded]) -> list[type[Event]]:
    return [type(record.event) for record in history]
