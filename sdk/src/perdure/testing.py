"""Test workflows with the real engine and a real worker, in memory, on a clock that waits for nobody.

    async with WorkflowEnvironment(my_app) as env:
        charge = env.mock(payments.charge, "receipt-1")
        assert await env.client.execute(order, "sku-1") == "shipped"   # though it sleeps for a week
        assert charge.calls == [("sku-1", 500)]

Time stands still, but while a call of the client waits for an answer, or `env.sleep` for its end: then, as soon as
nothing else is left to do, it jumps to the next timer, time-out or retry. Async tasks and mocks live by that clock too:
`asyncio.sleep(100)` in one takes no real time. What takes real time are threads, processes and sockets: mock tasks that
need them for long.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import inspect
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from perdure._client.backend import PortsBackend
from perdure._duration import Duration, milliseconds
from perdure._payloads.backend import coded
from perdure._payloads.blobs import StoreBlobs
from perdure._testing.journal import Journal
from perdure._testing.timekeeper import NothingComes, RunStuck, Timekeeper
from perdure._testing.virtual import VirtualClock
from perdure.client import Client
from perdure.errors import DefinitionError, PerdureError
from perdure.registry import Registry
from perdure.task import Task
from perdure.worker import SLOTS, Worker
from perdure.workflow import Workflow, workflow_of
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.queues import QueueBroker, Queues
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Ports
from perdure_schemas.messages import Message

__all__ = ["Mock", "NothingComes", "RunStuck", "VirtualClock", "WorkflowEnvironment"]

TASK_HOLD_SECONDS = 0.01
"""Real ones: only then are the time-outs known of a task that is not over at once, and the clock stands still."""


class Mock:
    """What stands in for a task or child workflow, and what it was called with."""

    def __init__(self, name: str, answer: Any) -> None:
        """Made by `WorkflowEnvironment.mock`."""
        self.name = name
        """Of the task or workflow."""
        self.answer = answer
        """A value, an error to raise, or a function of the same arguments; may be changed at any time."""
        self.calls: list[tuple[Any, ...]] = []
        """The arguments of each attempt, in declaration order, defaults included."""

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        """Called by the worker instead of the code."""
        self.calls.append((*args, *kwargs.values()))
        answer = self.answer
        if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
            raise answer
        if callable(answer):
            answer = answer(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    def __repr__(self) -> str:
        return f"<mock of {self.name}, called {len(self.calls)} times>"


class WorkflowEnvironment:
    """Opened by `async with`. `client` is a Client like any other; what is made in it is gone when it closes."""

    client: Client

    def __init__(
        self,
        *objects: object,
        services: Sequence[object] = (),
        namespace: str = "default",
        slots: int = SLOTS,
        start: dt.datetime | None = None,
    ) -> None:
        """Nothing runs before it is opened.

        Args:
            objects: what the worker runs: modules, tasks, workflows. Tasks that are mocked may be left out.
            services: implementations of services.
            slots: attempts of tasks at a time.
            start: when the environment's time begins, with its zone; now unless given.

        Raises:
            DefinitionError: `objects` are no app.
        """
        if start is not None and start.tzinfo is None:
            raise ValueError("start needs a datetime with a time zone, such as datetime(2030, 1, 1, tzinfo=UTC).")
        start_ms = time.time_ns() // 1_000_000 if start is None else round(start.timestamp() * 1000)
        self._clock = VirtualClock(start_ms)
        self._registry = Registry(objects, services)
        self._serving: dict[str, Registry] = {}
        """By task, once the environment is open: what its worker looks the code up in."""
        self._namespace = namespace
        self._slots = slots
        self._journal = journal = Journal()
        ports = memory_ports(self._clock)
        self._ports = dataclasses.replace(ports, broker=QueueBroker(Queues(journal), journal))
        self._engine = Embedded(self._ports, namespace, task_hold_seconds=TASK_HOLD_SECONDS)
        self.client = Client(coded(_Backend(namespace, self._ports), None))
        journal.client_id = self.client.id
        self._time = Timekeeper(
            self._clock, ports=self._ports, journal=journal, client=self.client, namespace=namespace
        )
        self._running: list[asyncio.Task[None]] = []
        self._opened = False
        """Ever: what it holds is gone once it is closed."""

    async def __aenter__(self) -> Self:
        if self._opened:
            raise PerdureError("this environment was opened already: make another one")
        self._opened = True
        await self._engine.__aenter__()
        await self._start_worker(self._registry).ready.wait()
        await self.client.__aenter__()
        self._running.append(asyncio.create_task(self._time.keep(), name="perdure clock"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lived in self._journal.tasks:
            lived.release()
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        await self.client.__aexit__(kind, error, trace)
        await self._engine.__aexit__(kind, error, trace)
        for task in self._running:
            if not task.cancelled():
                task.result()  # a defect of a worker or of the clock must not go unseen

    def _start_worker(self, registry: Registry) -> Worker:
        self._serving.update(dict.fromkeys(registry.tasks, registry))
        worker = Worker(
            self._ports.broker,
            registry,
            namespace=self._namespace,
            slots=self._slots,
            clock=self._clock,
            blobs=StoreBlobs(self._ports.blobs, self._namespace),
            async_time=self._journal.tasks.of_worker(self._clock),
        )
        self._running.append(asyncio.create_task(worker.run(), name="perdure worker"))
        return worker

    def now(self) -> dt.datetime:
        """The environment's time, in UTC: what `perdure.now()` is in a workflow."""
        return dt.datetime.fromtimestamp(self._clock.now() / 1000, dt.UTC)

    async def sleep(self, duration: Duration) -> None:
        """Let so much of the environment's time pass, and all that happens in it."""
        await self._until(milliseconds(duration))

    async def idle(self) -> None:
        """Until nothing is left to do at this time: every run waits for a timer, or for somebody outside."""
        await self._until(0)

    async def _until(self, ms: int) -> None:
        if not self._running or self._running[-1].done():
            raise PerdureError("the environment is not open: use it inside `async with env:`")
        await self._time.until(self._clock.now() + ms)

    def mock(self, target: Any, answer: Any) -> Mock:
        """Let `answer` stand in for a task, a method of a `service_stub`, or a child workflow.

        Args:
            target: what workflow code calls. A workflow must be mocked before the environment is opened.
            answer: the result; or an error (class) to raise, which is retried as the task says; or a function, plain or
                async, that is called with the same arguments. The result must be of the type that the code's would be.

        Raises:
            DefinitionError: `target` is neither task nor workflow.
        """
        if isinstance(target, Task):
            mock = Mock(target.name, answer)
            self._journal.tasks.mocked.add(target.name)
            self._serve(target.bound_to(mock.call, "async"))
            return mock
        if not isinstance(target, Workflow | type):
            raise DefinitionError(
                f"{target!r:.80} is neither task nor workflow: mock takes what workflow code calls, as @task, "
                "service_stub and @workflow make it; the task itself, not its .fn"
            )
        definition: Workflow[..., Any] = workflow_of(target)
        if self._running:
            raise DefinitionError(f"mock workflow {definition.name} before `async with`: its worker runs already")
        mock = Mock(definition.name, answer)
        self._registry.workflows[definition.name] = definition.run_by(mock.call)
        return mock

    def _serve(self, task: Task[..., Any]) -> None:
        registry = self._serving.get(task.name, self._registry)
        if self._running and task.name not in self._serving:
            registry = Registry()  # no worker has asked for it so far
            registry.tasks[task.name] = task
            self._start_worker(registry)
        registry.tasks[task.name] = task
        self._registry.tasks[task.name] = task  # else the worker of the workflows warns that nobody has it


class _Backend(PortsBackend):
    """A client's, whose messages carry the environment's time."""

    def __init__(self, namespace: str, ports: Ports) -> None:
        super().__init__(namespace)
        self._clock = ports.clock
        self.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        return super().publish(topic, msgspec.structs.replace(message, at=self._clock.now()), until_end=until_end)
