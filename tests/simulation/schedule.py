"""One schedule: a workload in a world with faults, from its first message until nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, field

from perdure import Worker
from perdure._payloads.blobs import StoreBlobs
from perdure._worker.live import CACHE_BYTES
from perdure_runtime.projector import Projector
from perdure_runtime.sweep import Sweep
from perdure_runtime.task_driver import TaskEngine
from perdure_runtime.timer_driver import TimerService
from perdure_runtime.workflow_driver import WorkflowEngine
from tests.simulation.app import RETENTION_SECONDS, Stage, registry
from tests.simulation.catalog import WORKLOADS
from tests.simulation.checks import CHECKERS
from tests.simulation.client import NAMESPACE, Client
from tests.simulation.faults import Faults, profile
from tests.simulation.faulty_store import ports_of
from tests.simulation.leftovers import leftovers, waiting
from tests.simulation.virtual import Deadlock, VirtualLoop
from tests.simulation.workloads import Script
from tests.simulation.world import Process, World

FINISH_SECONDS_MAX = 900.0
"""Virtual. Everything that is retried has ended by then, also with doubled delays."""
BACKSTOP = "backstop"
"""Counts the schedules that would not have ended without the sweep."""
BACKSTOP_SECONDS = 600.0
"""Virtual. The sweep has looked at every overdue run by then, and what that brings on has ended."""
LATE_TIMERS_SECONDS = 60.0
"""Timers of workflow code that nobody waits for any more fire by then."""
TURN_AGE_SECONDS = 4_500.0
"""The answer to a turn of a purged run circles for an hour (protocol rule 14)."""
QUIET_SECONDS = 2.0
"""Longer than any hold."""


@dataclass(slots=True)
class Report:
    seed: int
    workload: str
    violations: list[str] = field(default_factory=list)
    stats: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    steps: int = 0
    doubled: list[str] = field(default_factory=list)
    """Attempts delivered more than once: allowed where something died between publish and acknowledge."""


def simulate(
    seed: int,
    faults: Faults | None = None,
    workload: str | None = None,
    *,
    backstop: bool = True,
    above: int | None = None,
) -> Report:
    """Run the schedule of a seed; faults and workload are drawn, too, unless given.

    With a backstop the sweep gets its turn where runs are still open when all have ended that can end by themselves.
    Values of more than `above` bytes, if it is given, are stored beside the messages.
    """
    name = workload if workload is not None else random.Random(f"workload {seed}").choice(sorted(WORKLOADS))
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = World(seed, faults or profile(seed), loop, above)
    errors = _Errors(world)
    log = logging.getLogger("perdure")
    log.addHandler(errors)
    try:
        Stage.set(world.ledger, seed)
        report = Report(seed, name)
        try:
            loop.run_until_complete(_Schedule(world, WORKLOADS[name], backstop=backstop).run())
        except Deadlock as error:
            world.ledger.violations.append(f"deadlock: {error}")
        report.violations = [*world.ledger.violations, *(found for check in CHECKERS for found in check(world))]
        report.stats, report.log, report.steps = world.ledger.stats, world.ledger.log, world.steps
        report.doubled = [id for id, attempt in world.ledger.attempts.items() if attempt.delivered > 1]
        report.stats["double deliveries"] = len(report.doubled)
        return report
    finally:
        log.removeHandler(errors)
        asyncio.set_event_loop(None)
        loop.close()


class _Errors(logging.Handler):
    """What a service reports as an error is one: no fault here may confuse it so."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "action", "") == "workflow_stuck":  # its run, or the engine, tells whether that counts
            return
        error = record.exc_info[1] if record.exc_info else None
        self._world.ledger.violations.append(f"error: {record.getMessage()} {error!r}")


class _Schedule:
    def __init__(self, world: World, script: Script, *, backstop: bool) -> None:
        self._world = world
        self._backstop = backstop
        self._script = script
        self._cache_bytes = world.dice.rng.choice((CACHE_BYTES, 1))
        """Workers keep every live run, or forget all but one: then nearly every turn is a replay."""

    async def run(self) -> None:
        world = self._world
        for number in range(2):
            world.start(f"workflow-engine-{number}", self._workflow_engine)
            world.start(f"task-engine-{number}", self._task_engine)
            world.start(f"worker-{number}", self._worker)
        for number in range(world.dice.rng.choice((1, 2))):  # one is active, the other takes over
            world.start(f"timers-{number}", self._timers)
        world.start("projector", self._projector)
        client = Client(world, "client-0")
        finished = await self._play(client)
        if finished:
            await self._settle("after the script")
            world.ledger.violations += world.watch.unkept()
            await asyncio.sleep(LATE_TIMERS_SECONDS)
            await self._settle("after late timers")
            await self._look_after_open_runs()
            await self._outlive()
            world.ledger.violations += leftovers(world)
        client.close()
        for process in world.processes.values():
            world.end(process)
        await asyncio.sleep(0)

    async def _play(self, client: Client) -> bool:
        """Whether the script came to its end."""
        world = self._world
        playing = asyncio.ensure_future(self._script(client, world.dice.rng))
        try:
            return await self._ended(playing)
        except AssertionError as error:
            world.ledger.violations.append(f"wrong: {error}")
        return True

    async def _ended(self, playing: asyncio.Task[None]) -> bool:
        """Whether it ends, by itself or helped by the backstop."""
        world = self._world
        done, _ = await asyncio.wait({playing}, timeout=FINISH_SECONDS_MAX)
        if not done and self._backstop:
            self._start_backstop()
            done, _ = await asyncio.wait({playing}, timeout=BACKSTOP_SECONDS)
        if done:
            await playing
            return True
        playing.cancel()
        world.ledger.violations.append(f"unfinished: {', '.join(waiting(world)) or 'nothing is on its way'}")
        return False

    async def _look_after_open_runs(self) -> None:
        """Of a run whose end nobody waits for the script does not tell that nobody works on it any more."""
        if self._backstop and "sweep" not in self._world.processes and self._world.ledger.open_runs():
            self._start_backstop()
            await asyncio.sleep(BACKSTOP_SECONDS)

    async def _outlive(self) -> None:
        """Until retention is over since the last end. What a failed run left open ends only when that is purged."""
        world = self._world
        for process in world.processes.values():
            process.clock.skew_ms = 0
        ended = -1
        while ended != world.ledger.ends:
            ended = world.ledger.ends
            for name in ("worker-0", "worker-1"):  # not to have them announce themselves for an hour
                world.end(world.processes[name])
            await asyncio.sleep(RETENTION_SECONDS + 60 + 3 * world.dice.faults.clock_jump_max_ms / 1000)
            world.start("worker-0", self._worker)
            await self._settle("after retention", TURN_AGE_SECONDS)

    def _start_backstop(self) -> None:
        """Only now: a sweep from the beginning on would heal, unseen, what has to end without it."""
        world = self._world
        world.ledger.fault(BACKSTOP, world.loop.time(), ", ".join(world.ledger.open_runs()))
        world.start("sweep", self._sweep)

    async def _settle(self, when: str, seconds: float = FINISH_SECONDS_MAX) -> None:
        """Wait until no message is left, after the last fault."""
        world = self._world
        rest = world.dice.faults.until + QUIET_SECONDS - world.loop.time()
        if rest > 0:
            await asyncio.sleep(rest)
        deadline = world.loop.time() + seconds
        quiet_since = None
        while world.loop.time() < deadline:
            if list(waiting(world)):
                quiet_since = None
            elif quiet_since is None:
                quiet_since = world.loop.time()
            elif world.loop.time() - quiet_since >= QUIET_SECONDS:
                return
            await asyncio.sleep(QUIET_SECONDS / 4)
        world.ledger.violations.append(f"left over {when}: {', '.join(waiting(world))}")

    # --- services -----------------------------------------------------------------------------------

    async def _workflow_engine(self, process: Process) -> None:
        await WorkflowEngine(ports_of(self._world, process), NAMESPACE, process.name).run()

    async def _task_engine(self, process: Process) -> None:
        await TaskEngine(ports_of(self._world, process), NAMESPACE, process.name).run()

    async def _timers(self, process: Process) -> None:
        await TimerService(ports_of(self._world, process), NAMESPACE).run()

    async def _projector(self, process: Process) -> None:
        await Projector(ports_of(self._world, process), NAMESPACE).run()

    async def _sweep(self, process: Process) -> None:
        await Sweep(ports_of(self._world, process), NAMESPACE).run()

    async def _worker(self, process: Process) -> None:
        numbers = iter(range(1, 1_000_000))
        ports = ports_of(self._world, process)
        worker = Worker(
            ports.broker,
            registry(),
            clock=process.clock,
            worker_id=process.name,
            ids=lambda: f"{process.name}-{next(numbers)}",
            inline_turns=True,
            cache_bytes=self._cache_bytes,
            blobs=StoreBlobs(ports.blobs, NAMESPACE),
            offload_above=self._world.above,
        )
        await worker.run()
