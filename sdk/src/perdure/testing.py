"""Test workflows with the real engine and a real worker, in memory, on a clock that waits for nobody.

    async with WorkflowEnvironment(my_app) as env:
        charge = env.mock(payments.charge, "receipt-1")
        assert await env.client.execute(order, "sku-1") == "shipped"   # though it sleeps for a week
        assert charge.calls == [("sku-1", 500)]

Time stands still, but while a call of the client waits for an answer, or `env.sleep` for its end: then, as soon as
nothing else is left to do, it jumps to the next timer, time-out or retry. A running task is something to do: tasks take
the real time they take; mock those that take long.
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
from perdure._client.requests import Question, any_run
from perdure._duration import Duration, milliseconds
from perdure._payloads.backend import coded
from perdure._payloads.blobs import StoreBlobs
from perdure.client import Client, open_questions
from perdure.errors import DefinitionError, PerdureError
from perdure.failures import exception_from_failure
from perdure.registry import Registry
from perdure.task import Task
from perdure.worker import SLOTS, Worker
from perdure.workflow import Workflow, workflow_of
from perdure_core.task_engine.deadlines import next_deadline
from perdure_core.task_engine.state import decode
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.memory.journal import MemoryJournal
from perdure_runtime.adapters.queues import QueueBroker, Queues
from perdure_runtime.adapters.subscriptions import Entry
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Ports
from perdure_runtime.timer_driver import SHARD
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import (
    CancelTimer,
    Message,
    RunChanged,
    ScheduleTimer,
    TaskChanged,
    TaskTimerFired,
    TimerFired,
    WorkflowTaskFailed,
)

__all__ = ["Mock", "NothingComes", "RunStuck", "VirtualClock", "WorkflowEnvironment"]

CALM_PASSES = 40
"""Passes of the event loop without any message moving, after which nothing moves by itself: engines in this process
take a handful of passes for a step."""
LOOK_SECONDS = 0.002
"""A call that waits for a run's end sends nothing: look now and then whether one does."""
SILENT_LOOKS = 1_000
"""In a row in which nothing moves and nothing is due, two seconds at least: a test may act a moment of real time after
it began to wait. Counted in looks: each takes longer where the machine is busy, and so do the test's own tasks."""
FOR_EVER_MS = 2**53
TIMERS_MAX = 10_000
"""Open timers looked at for the next one that somebody waits for."""


class RunStuck(PerdureError):
    """A run waits for its code to be mended: it raised what no workflow means to raise, or was changed."""


class NothingComes(PerdureError):
    """What the test waits for never comes: nothing is under way or due, and nobody sends anything. It says what for."""


class VirtualClock:
    """Stands still until it is set."""

    def __init__(self, start_ms: int) -> None:
        self._now = start_ms

    def now(self) -> int:
        """Epoch milliseconds."""
        return self._now

    def advance_to(self, moment_ms: int) -> None:
        """Never goes back."""
        self._now = max(self._now, moment_ms)


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
        journal = _Journal()
        ports = memory_ports(self._clock)
        self._ports = dataclasses.replace(ports, broker=QueueBroker(Queues(journal), journal))
        self._engine = Embedded(self._ports, namespace)
        self.client = Client(coded(_Backend(namespace, self._ports), None))
        journal.client_id = self.client.id
        self._time = _Timekeeper(
            self._clock, ports=self._ports, journal=journal, client=self.client, namespace=namespace
        )
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        await self._start_worker(self._registry).ready.wait()
        await self.client.__aenter__()
        self._running.append(asyncio.create_task(self._time.keep(), name="perdure clock"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        name, blobs = self._namespace, StoreBlobs(self._ports.blobs, self._namespace)
        worker = Worker(self._ports.broker, registry, namespace=name, slots=self._slots, clock=self._clock, blobs=blobs)
        self._running.append(asyncio.create_task(worker.run(), name="perdure worker"))
        return worker

    def now(self) -> dt.datetime:
        """The environment's time, in UTC: what `perdure.now()` is in a workflow."""
        return dt.datetime.fromtimestamp(self._clock.now() / 1000, dt.UTC)

    async def sleep(self, duration: Duration) -> None:
        """Let so much of the environment's time pass, and all that happens in it."""
        await self._time.until(self._clock.now() + milliseconds(duration))

    async def idle(self) -> None:
        """Until nothing is left to do at this time: every run waits for a timer, or for somebody outside."""
        await self._time.until(self._clock.now())

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


class _Timekeeper:
    """Moves the clock whenever nothing but time can move the runs, and somebody waits for that."""

    def __init__(self, clock: VirtualClock, *, ports: Ports, journal: _Journal, client: Client, namespace: str) -> None:
        self._clock = clock
        self._ports = ports
        self._journal = journal
        self._client = client
        self._namespace = namespace
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._silent_looks = 0
        self._seen: tuple[int, list[Question]] = (0, [])
        """At the last look: news, and questions."""

    async def until(self, moment_ms: int) -> None:
        """Let time pass until then."""
        reached = asyncio.get_running_loop().create_future()
        self._sleepers.append((moment_ms, reached))
        self._journal.moved.set()
        await reached

    async def keep(self) -> None:
        """Work until canceled."""
        while True:
            await self._calm()
            due = await self._next_due()
            if due is not None and due <= self._clock.now():
                await self._journal.wait(LOOK_SECONDS)  # being fired
            elif due is not None and due <= self._horizon():
                await self._advance(due)
            elif self._sleepers:
                await self._advance(min(moment for moment, _ in self._sleepers))
                self._rouse()
            else:
                self._tell_of_stuck()
                self._tell_of_silence()
                await self._journal.wait(LOOK_SECONDS)

    async def _calm(self) -> None:
        """Until no message moves, and none is on its way."""
        journal = self._journal
        passes = 0
        while passes < CALM_PASSES:
            moves = journal.moves
            await asyncio.sleep(0)
            if journal.busy():
                await journal.wait()
                passes = 0
            else:
                passes = passes + 1 if journal.moves == moves else 0

    async def _next_due(self) -> int | None:
        """When time next brings something. While only calls wait: but for the engine's own housekeeping."""
        timers = await self._ports.timers.due(self._namespace, SHARD, FOR_EVER_MS, TIMERS_MAX)
        now, asleep = self._clock.now(), bool(self._sleepers)
        for timer in timers:
            if asleep or timer.due_at <= now or not (_housekeeping(timer) or await self._watches(timer)):
                return timer.due_at
        return None

    async def _watches(self, timer: ScheduleTimer) -> bool:
        """Whether it but looks again at a task that has no deadline."""
        if not isinstance(timer.fires, TaskTimerFired):
            return False
        _, record = await self._ports.tasks.load(self._namespace, timer.fires.task_id)
        return record is not None and next_deadline(decode(record))[1] == "watch"

    def _horizon(self) -> int:
        """How far the clock may go."""
        if self._sleepers:
            return min(moment for moment, _ in self._sleepers)
        self._tell_of_stuck()
        return FOR_EVER_MS if open_questions(self._client) else 0

    async def _advance(self, moment_ms: int) -> None:
        if moment_ms > self._clock.now():
            self._clock.advance_to(moment_ms)
            nudge = Message(
                id=f"nudge-{moment_ms}", namespace=self._namespace, key="", at=moment_ms, body=CancelTimer(timer_id="")
            )
            await self._ports.broker.publisher().publish([(topics.TIMERS, nudge)])  # the service looks at the clock

    def _rouse(self) -> None:
        now = self._clock.now()
        for moment, reached in self._sleepers:
            if moment <= now and not reached.done():
                reached.set_result(None)
        self._sleepers = [(moment, reached) for moment, reached in self._sleepers if not reached.done()]

    def _tell_of_stuck(self) -> None:
        """A stuck run never ends by itself: whoever waits for its end, or that of a run it is a child of, is told."""
        for change in self._journal.stuck.values():
            keys = self._journal.lineage(change)
            for question in open_questions(self._client):
                if not keys.isdisjoint(question.keys):
                    question.answer.set_exception(_stuck_error(change, self._journal.failures.get(change.run_id)))

    def _tell_of_silence(self) -> None:
        """Called when nothing is due. Whoever waits is told, once that has lasted."""
        seen = (self._journal.news, open_questions(self._client))
        silent = seen == self._seen and bool(seen[1]) and not self._journal.delegated
        self._silent_looks = self._silent_looks + 1 if silent else 0
        self._seen = seen
        if self._silent_looks >= SILENT_LOOKS:
            for question in seen[1]:
                question.answer.set_exception(NothingComes(self._journal.told_of_waits(question.keys)))


def _housekeeping(timer: ScheduleTimer) -> bool:
    """Retention, and looking again at a stuck run: nobody waits for these."""
    return isinstance(timer.fires, TimerFired) and timer.fires.kind in ("retention", "turn")


def _stuck_error(change: RunChanged, failure: Failure | None) -> RunStuck:
    stack = "" if failure is None else failure.stack
    error = RunStuck(f"run {change.workflow_id!r} of {change.name} is stuck: {change.last_error}\n{stack}".rstrip())
    if failure is not None:
        error.__cause__ = exception_from_failure(failure)
    return error


class _Backend(PortsBackend):
    """A client's, whose messages carry the environment's time."""

    def __init__(self, namespace: str, ports: Ports) -> None:
        super().__init__(namespace)
        self._clock = ports.clock
        self.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        return super().publish(topic, msgspec.structs.replace(message, at=self._clock.now()), until_end=until_end)


class _Journal(MemoryJournal):
    """Knows which messages are on their way, and what they told of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0
        """Counts publishes and acknowledgements."""
        self.client_id = ""
        self.news = 0
        """Of these, those of messages that are not the client's own: it asks again and again while it waits."""
        self.moved = asyncio.Event()
        self.stuck: dict[str, RunChanged] = {}
        """By run id; so are the others."""
        self.failures: dict[str, Failure] = {}
        """Of turns."""
        self.delegated: set[str] = set()
        """Tasks that run without a message: somebody outside is to complete them."""
        self._open: dict[int, Entry] = {}
        self._current: dict[str, RunChanged] = {}
        """By run id, those that have not ended."""
        self._parents: dict[str, str] = {}
        self._runs: dict[str, set[str]] = {}

    async def publish(self, entries: list[Entry]) -> None:
        await super().publish(entries)
        for entry in entries:
            self._open[entry.id] = entry
            match entry.message.body if entry.message is not None else None:
                case RunChanged() as change:
                    self._note(change)
                case TaskChanged(task_id=task_id, status=status):
                    (self.delegated.add if status == "running" else self.delegated.discard)(task_id)
                case WorkflowTaskFailed(run_id=run_id, failure=failure):
                    self.failures[run_id] = failure
                case _:
                    pass
        self._move(entries)

    def acknowledge(self, entries: list[Entry]) -> None:
        super().acknowledge(entries)
        for entry in entries:
            self._open.pop(entry.id, None)
        self._move(entries)

    def _move(self, entries: list[Entry]) -> None:
        self.moves += 1
        self.news += any(entry.message is None or entry.message.emitter != self.client_id for entry in entries)
        self.moved.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Until a message moves."""
        self.moved.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.moved.wait()
        except TimeoutError:
            pass

    def busy(self) -> bool:
        """Whether a message is on its way: all but those that engines keep back, and those that nobody takes."""
        return any(_moving(entry) for entry in self._open.values())

    def _note(self, change: RunChanged) -> None:
        self._parents[change.workflow_id] = change.parent_workflow_id
        self._runs.setdefault(change.workflow_id, set()).add(change.run_id)
        if change.status == "stuck":
            self.stuck[change.run_id] = change
        else:
            self.stuck.pop(change.run_id, None)
        if change.ended_at is None:
            self._current[change.run_id] = change
        else:
            self._current.pop(change.run_id, None)

    def lineage(self, change: RunChanged) -> set[str]:
        """What questions about the run, or a run above it, are known by."""
        keys = {change.run_id, any_run(change.workflow_id)}
        above = change.parent_workflow_id
        while above:
            keys |= {any_run(above), *self._runs.get(above, ())}
            above = self._parents.get(above, "")
        return keys

    def told_of_waits(self, keys: tuple[str, ...]) -> str:
        """What the run asked for waits for, and each below it; of other questions: what any run waits for."""
        runs = list(self._current.values())
        asked = [run for run in runs if not self.lineage(run).isdisjoint(keys)]
        waits = [
            f"run {run.workflow_id!r} of {run.name} waits for {wait}"
            for run in asked or runs
            for wait in self._waits(run)
        ]
        return (
            "; ".join(waits) or "no worker of this environment has what was asked for: pass it to WorkflowEnvironment"
        )

    def _waits(self, run: RunChanged) -> list[str]:
        if self._nobody_takes(topics.workflow_run(run.name)):
            return ["its workflow, which is not given: pass it to WorkflowEnvironment"]
        return [self._wait(label) for label in run.waits_for.split(", ") if label]

    def _wait(self, label: str) -> str:
        """`label` is as in `RunChanged.waits_for`."""
        kind, _, name = label.partition(" (")[0].partition(" ")
        if kind == "signal":
            return f"signal {name}, which nobody sends: send it before you wait for the run"
        if kind == "task" and self._nobody_takes(topics.task_run(name)):
            remedy = f"env.mock({name.rpartition('.')[2]}, …), or pass it to WorkflowEnvironment"
            return f"task {name}, which is neither given nor mocked: {remedy}"
        return label

    def _nobody_takes(self, topic: str) -> bool:
        """Whether a message waits there, and no worker has asked for any."""
        return any(
            entry.subscription.topic == topic and not entry.subscription.members for entry in self._open.values()
        )


def _moving(entry: Entry) -> bool:
    subscription = entry.subscription
    if not subscription.members:
        return False
    kept_back = subscription.topic in (topics.WORKFLOW_ENGINE, topics.TASK_ENGINE)
    return not (kept_back and any(held is entry for m in subscription.members for held in m.held_of(subscription)))
