"""The simulated world: processes that crash, fall asleep and come back, around one store and one broker.

Every call of a port is a *step*: before and after it the process may die, sleep, or merely take its time. What is
dead does nothing any more; what sleeps goes on later with what it knew before, however stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.convert import OFFLOAD_ABOVE_BYTES
from perdure_runtime.adapters.memory.journal import MemoryJournal
from perdure_runtime.adapters.memory.read_model import MemoryReadModel
from perdure_runtime.adapters.memory.records import MemoryBlobs, MemoryRouting, MemoryTasks, MemoryTimers
from perdure_runtime.adapters.memory.store import MemoryStore
from perdure_runtime.adapters.queues import QueueBroker, Queues
from perdure_runtime.ports import Commit, RunKey
from tests.simulation.faults import Dice, Faults
from tests.simulation.ledger import Ledger
from tests.simulation.offloaded import Watch
from tests.simulation.virtual import VirtualClock, VirtualLoop, owner_of

if TYPE_CHECKING:
    from tests.simulation.faulty_broker import FaultyConsumer

RESTART_SECONDS = (0.05, 1.0)
"""A supervisor starts another one within this time."""
REDELIVERY_MS = (0, 0, 100, 1_500)
"""What the broker takes to notice that a consumer is gone."""


@dataclass(eq=False, slots=True)
class Process:
    """One incarnation of a service."""

    service: str
    incarnation: int
    clock: VirtualClock
    mortal: bool = True
    dead: bool = False
    asleep_until: float = 0.0
    consumers: list[FaultyConsumer] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.service}.{self.incarnation}"


Service = Callable[[Process], Awaitable[None]]
"""What a process does, until it is canceled."""


class World:
    """Owns the truth, the dice and the ledger."""

    def __init__(self, seed: int | str, faults: Faults, loop: VirtualLoop, above: int | None = None) -> None:
        """`above`: bytes above which values are stored beside messages; `None`: no value of these schedules is."""
        self.loop = loop
        self.above = OFFLOAD_ABOVE_BYTES if above is None else above
        self.dice = Dice(seed, faults, loop)
        self.ledger = Ledger()
        self.clock = VirtualClock(loop)
        self.steps = 0
        self.under_way = 0
        """Messages that the broker has and nobody can receive yet."""
        self.pending: dict[RunKey, tuple[str, Commit]] = {}
        """Conditional writes that were sent, not answered, and may be applied later."""
        self.processes: dict[str, Process] = {}
        self.any_engine = self.dice.rng.random() < faults.any_replica
        self.any_worker = self.dice.rng.random() < faults.any_replica
        """Keys stick to no replica."""
        journal = MemoryJournal()
        self.queues = Queues(journal)
        self.broker = QueueBroker(self.queues, journal)
        self.store = MemoryStore(self.clock)
        self.tasks = MemoryTasks(self.clock)
        self.timers = MemoryTimers()
        self.read_model = MemoryReadModel(self.clock)
        self.blobs = MemoryBlobs(self.clock)
        self.routing = MemoryRouting()
        self.watch = Watch(self)
        self._services: dict[str, Service] = {}
        self._incarnations: dict[str, int] = {}

    # --- processes ----------------------------------------------------------------------------------

    def start(self, name: str, service: Service) -> None:
        """Run a service, and run it again whenever it is killed."""
        self._services[name] = service
        self._incarnations[name] = self._incarnations.get(name, 0) + 1
        clock = VirtualClock(self.loop)
        previous = self.processes.get(name)
        if previous is not None:
            clock.skew_ms = previous.clock.skew_ms
        process = Process(name, self._incarnations[name], clock)
        self.processes[name] = process
        token = owner_of.set(process)
        try:
            task = self.loop.create_task(_main(service, process), name=process.name)
        finally:
            owner_of.reset(token)
        task.add_done_callback(lambda done: self._ended(process, done))

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if process.dead or task.cancelled():
            return
        error = task.exception()
        self.ledger.violations.append(f"{process.name} stopped by itself: {error!r}")

    def kill(self, process: Process, why: str) -> None:
        """SIGKILL: nothing of it runs on; what it held comes to somebody else; a new one starts soon."""
        if process.dead:
            return
        self.ledger.fault("crash", self.loop.time(), f"{process.name} {why}")
        self.end(process)
        self.loop.call_later(
            self.dice.rng.uniform(*RESTART_SECONDS), self.start, process.service, self._services[process.service]
        )

    def end(self, process: Process) -> None:
        """Stop it for good."""
        process.dead = True
        for consumer in process.consumers:
            consumer.lose_session(self.dice.rng.choice(REDELIVERY_MS))
        self.loop.cancel_all_of(process)

    async def step(self, process: Process, what: str) -> None:
        """A point at which the process may die, sleep, or take its time."""
        dice, faults = self.dice, self.dice.faults
        if process.dead:
            raise asyncio.CancelledError
        if not process.mortal:
            return
        self.steps += 1
        targeted = process.service.startswith(faults.target)
        if faults.crash_at == self.steps or (targeted and dice.strikes(faults.crash)):
            self.kill(process, what)
            raise asyncio.CancelledError
        if dice.strikes(faults.clock_jump):
            process.clock.skew_ms = dice.rng.randint(-faults.clock_jump_max_ms, faults.clock_jump_max_ms)
            self.ledger.fault("clock_jump", self.loop.time(), f"{process.name} {process.clock.skew_ms} ms")
        if faults.sleep_at == self.steps or (targeted and dice.strikes(faults.pause)):
            self._fall_asleep(process, what)
        latency = dice.latency()
        if latency is not None:
            await asyncio.sleep(latency)
        while process.asleep_until > self.loop.time():  # noqa: ASYNC110  # it may fall asleep again meanwhile
            await asyncio.sleep(process.asleep_until - self.loop.time())
        if process.dead:
            raise asyncio.CancelledError

    def _fall_asleep(self, process: Process, what: str) -> None:
        rng, faults = self.dice.rng, self.dice.faults
        seconds = rng.uniform(0.01, faults.pause_max)
        process.asleep_until = self.loop.time() + seconds
        zombie = faults.sleep_at == self.steps or rng.random() < faults.session_lost
        self.ledger.fault("zombie" if zombie else "pause", self.loop.time(), f"{process.name} {seconds:.2f} s {what}")
        if zombie:
            for consumer in process.consumers:
                consumer.lose_session(rng.choice(REDELIVERY_MS))


async def _main(service: Service, process: Process) -> None:
    await service(process)
