"""The simulated world: processes that crash, pause and lose sessions, around the memory adapter.

Every call of a port is a step: before and after it the process may die or sleep. The faults are drawn from
one seed; with the seed and the code a run repeats exactly.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import (
    Commit,
    Consumer,
    Delivery,
    Head,
    Ports,
    RunKey,
    SubscriptionType,
    Undeliverable,
)
from perdure_schemas.events import CommandSettled, Recorded, Rewound
from perdure_schemas.messages import Message, RunTask
from tests.simulation.virtual import VirtualClock, VirtualLoop, process_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Probabilities per step; none after `until` (virtual seconds), so that every run can end."""

    until: float = 8.0
    crash: float = 0.004
    pause: float = 0.004
    pause_max: float = 4.0
    publish_error: float = 0.02
    duplicate: float = 0.03
    delay: float = 0.10
    delay_max: float = 3.5
    lost_ack: float = 0.05
    unknown_commit: float = 0.06
    any_replica: float = 0.5
    """Share of runs in which keyed topics go to any replica."""
    crash_at: int | None = None
    """Kill whoever makes the n-th step, once: to try every crash point in turn."""


NO_FAULTS = Faults(until=0.0)


@dataclass(eq=False, slots=True)
class Process:
    """One incarnation of a service."""

    name: str
    make: Callable[[Process], Awaitable[None]]
    dead: bool = False
    paused_until: float = 0.0
    consumers: list[FaultyConsumer] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """Workflow id -> number of commits of the world when this process last read or wrote it."""


class World:
    """Owns the truth (the memory adapter), the dice and the log."""

    def __init__(self, seed: int, faults: Faults, loop: VirtualLoop, ports: Ports) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.faults = faults
        self.loop = loop
        self.ports = ports
        self.clock = VirtualClock(loop)
        self.stats: Counter[str] = Counter()
        self.steps = 0
        self.commits = 0
        self.settled_at: dict[str, int] = {}
        # command id -> commit number of its recorded outcome
        self.run_tasks: list[tuple[str, str, int]] = []
        # (process, command id, generation)
        self.late_run_tasks: list[str] = []
        self.pending: dict[RunKey, Commit] = {}
        self.processes: dict[str, Process] = {}
        self.shared_keys = self.rng.random() < faults.any_replica
        self.log: list[str] = []

    def roll(self, probability: float) -> bool:
        """A fault of this probability strikes now."""
        return self.loop.time() < self.faults.until and self.rng.random() < probability

    # -- processes ---------------------------------------------------------------------------------

    def start(self, name: str, make: Callable[[Process], Awaitable[None]]) -> None:
        process = Process(name, make)
        self.processes[name] = process
        token = process_of.set(process)
        try:
            task = self.loop.create_task(self._main(process), name=name)
        finally:
            process_of.reset(token)
        task.add_done_callback(lambda done: self._ended(process, done))

    async def _main(self, process: Process) -> None:
        await process.make(process)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if not process.dead and not task.cancelled() and task.exception() is not None:
            self.log.append(f"{process.name} stopped: {task.exception()!r}")
            self.stats["stopped"] += 1

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it runs on; what it held is delivered again; a new one starts soon."""
        if process.dead:
            return
        process.dead = True
        self.stats["crash"] += 1
        for consumer in process.consumers:
            self._detached(consumer.lose_session(close=True))
        for task in list(self.loop.by_process.get(process, ())):
            task.cancel()
        self.loop.call_later(self.rng.uniform(0.05, 1.0), self.start, process.name, process.make)

    def _detached(self, work: Awaitable[None]) -> None:
        token = process_of.set(None)
        try:
            asyncio.ensure_future(work, loop=self.loop)
        finally:
            process_of.reset(token)

    async def step(self, process: Process, what: str) -> None:
        """A point at which the process may die or sleep."""
        self.steps += 1
        if process.dead:
            await _for_ever()
        if self.faults.crash_at == self.steps or self.roll(self.faults.crash):
            self.log.append(f"{self.loop.time():.3f} kill {process.name} at {what}")
            self.kill(process)
            await _for_ever()
        if self.roll(self.faults.pause):
            process.paused_until = self.loop.time() + self.rng.uniform(0.01, self.faults.pause_max)
            self.stats["pause"] += 1
            if self.rng.random() < 0.7:
                for consumer in process.consumers:
                    self._detached(consumer.lose_session(close=False))
        while process.paused_until > self.loop.time():
            await asyncio.sleep(process.paused_until - self.loop.time())
        if process.dead:
            await _for_ever()

    # -- the truth ---------------------------------------------------------------------------------

    def recorded(self, key: RunKey, events: Sequence[Recorded]) -> None:
        self.commits += 1
        for entry in events:
            event = entry.event
            if isinstance(event, CommandSettled):
                self.settled_at.setdefault(event.command_id, self.commits)
            elif isinstance(event, Rewound):
                for command_id in [c for c in self.settled_at if c not in self.final]:
                    self.settled_at.pop(command_id)
        del key

    @property
    def final(self) -> frozenset[str]:
        return frozenset()

    def ports_of(self, process: Process) -> Ports:
        """The ports as this process sees them."""
        inner = self.ports
        return Ports(
            clock=self.clock,
            broker=FaultyBroker(self, process),
            store=FaultyStore(self, process),
            tasks=FaultyTasks(self, process),
            timers=Stepped(self, process, inner.timers),  # type: ignore[arg-type]
            read_model=Stepped(self, process, inner.read_model),  # type: ignore[arg-type]
            blobs=inner.blobs,
            routing=inner.routing,
        )


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


class Stepped:
    """A port whose every call is a step before and after."""

    def __init__(self, world: World, process: Process, inner: Any) -> None:
        self._world, self._process, self._inner = world, process, inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._world.step(self._process, f"before {name}")
            result = await method(*args, **kwargs)
            await self._world.step(self._process, f"after {name}")
            return result

        return call


class FaultyTasks(Stepped):
    """Compare-and-set of task records, whose outcome may be unknown."""

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, ttl_ms: int | None
    ) -> bool:
        world, process = self._world, self._process
        await world.step(process, "before save")
        if world.roll(world.faults.unknown_commit):
            world.stats["unknown_save"] += 1
            if world.rng.random() < 0.5:
                await self._inner.save(namespace, task_id, expected_version, record, ttl_ms)
            raise UnknownOutcome("simulated")
        result: bool = await self._inner.save(namespace, task_id, expected_version, record, ttl_ms)
        await world.step(process, "after save")
        return result


class FaultyStore:
    """Compare-and-set whose outcome may be unknown: applied, not applied, or applied at the next serial operation."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process, self._inner = world, process, world.ports.store

    async def _settle(self, key: RunKey) -> None:
        pending = self._world.pending.pop(key, None)
        if pending is not None and self._world.rng.random() < 0.5:
            await self._apply(pending)

    async def _apply(self, commit: Commit) -> bool:
        applied = await self._inner.commit(commit)
        if applied:
            self._world.recorded(commit.key, commit.events)
        return applied

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        await self._world.step(self._process, "before load")
        await self._settle(key)
        loaded = await self._inner.load(key)
        self._process.seen[key.workflow_id] = self._world.commits
        await self._world.step(self._process, "after load")
        return loaded

    async def version(self, key: RunKey) -> int:
        await self._world.step(self._process, "before version")
        await self._settle(key)
        version = await self._inner.version(key)
        await self._world.step(self._process, "after version")
        return version

    async def commit(self, commit: Commit) -> bool:
        world = self._world
        await world.step(self._process, "before commit")
        await self._settle(commit.key)
        if world.roll(world.faults.unknown_commit):
            world.stats["unknown_commit"] += 1
            chance = world.rng.random()
            if chance < 0.34:
                await self._apply(commit)
            elif chance < 0.67:
                world.pending[commit.key] = commit
            raise UnknownOutcome("simulated")
        applied = await self._apply(commit)
        if not applied:
            world.stats["lost_commit"] += 1
        else:
            self._process.seen[commit.key.workflow_id] = world.commits
        await world.step(self._process, "after commit")
        return applied

    def __getattr__(self, name: str) -> Any:
        return getattr(Stepped(self._world, self._process, self._inner), name)


class FaultyBroker:
    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    def publisher(self) -> FaultyPublisher:
        return FaultyPublisher(self._world, self._process)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> FaultyConsumer:
        world = self._world
        if type == "key-shared" and world.shared_keys:
            type = "shared"
        inner = await world.ports.broker.subscribe(namespace, topics, subscription, type)
        consumer = FaultyConsumer(world, self._process, inner)
        self._process.consumers.append(consumer)
        return consumer


class FaultyPublisher:
    """Publishes late, twice, or fails though stored."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._inner = world.ports.broker.publisher()

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        world = self._world
        for topic, message in batch:
            await world.step(self._process, f"before publish {type(message.body).__name__}")
            if world.roll(world.faults.publish_error):
                world.stats["publish_error"] += 1
                if world.rng.random() < 0.5:
                    await self._put(topic, message)
                raise StorageUnavailable("simulated")
            await self._put(topic, message)
            if world.roll(world.faults.duplicate):
                world.stats["duplicate"] += 1
                await self._put(topic, message)
        await world.step(self._process, "after publish")

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        await self._inner.publish_raw(topic, namespace, data, reason)

    async def _put(self, topic: str, message: Message) -> None:
        world = self._world
        if isinstance(message.body, RunTask) and message.body.workflow is not None:
            self._note(message.body)
        if world.roll(world.faults.delay):
            world.stats["delay"] += 1
            delay = world.rng.uniform(0.0, world.faults.delay_max)
            world.loop.call_later(delay, lambda: world._detached(self._inner.publish([(topic, message)])))
        else:
            await self._inner.publish([(topic, message)])

    def _note(self, task: RunTask) -> None:
        """A RunTask whose publisher had read the run after the task's outcome was recorded should not be."""
        world = self._world
        assert task.workflow is not None
        seen = self._process.seen.get(task.workflow.workflow_id, 0)
        world.run_tasks.append((self._process.name, task.task_id, task.generation))
        settled = world.settled_at.get(task.task_id)
        if settled is not None and settled <= seen:
            world.late_run_tasks.append(f"{self._process.name} {task.name} attempt {task.attempt}")


class FaultyConsumer:
    """Loses acknowledgements and sessions."""

    def __init__(self, world: World, process: Process, inner: Consumer) -> None:
        self._world, self._process, self._inner = world, process, inner
        self._held: dict[Delivery | Undeliverable, None] = {}

    async def receive(self, limit: int = 256) -> Sequence[Delivery | Undeliverable]:
        batch = await self._inner.receive(limit)
        self._held.update(dict.fromkeys(batch))
        await self._world.step(self._process, "after receive")
        return batch

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        world = self._world
        await world.step(self._process, "before ack")
        for delivery in deliveries:
            if self._held.pop(delivery, True) is not None:
                continue
            if world.roll(world.faults.lost_ack):
                world.stats["lost_ack"] += 1
                await self._inner.nack([delivery], world.rng.choice((0, 100, 1500)))
            else:
                await self._inner.ack([delivery])
        await world.step(self._process, "after ack")

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        mine = [delivery for delivery in deliveries if self._held.pop(delivery, True) is None]
        if mine:
            await self._inner.nack(mine, delay_ms)

    async def lose_session(self, *, close: bool) -> None:
        """The broker gives what this consumer holds to somebody."""
        held, self._held = list(self._held), {}
        if held:
            await self._inner.nack(held, self._world.rng.choice((0, 0, 100, 1500)))
        if close:
            await self._inner.close()

    async def close(self) -> None:
        if not self._process.dead:
            await self.lose_session(close=True)
