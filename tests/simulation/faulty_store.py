"""The stores as one process sees them: conditional writes whose outcome is unknown, calls that fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure_core.task_engine.authority import Mark
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import Commit, Head, Ports, RunKey
from perdure_schemas.blobs import Blob
from perdure_schemas.events import Recorded
from tests.simulation.faulty_broker import FaultyBroker
from tests.simulation.virtual import at_once
from tests.simulation.world import Process, World


def ports_of(world: World, process: Process) -> Ports:
    """The ports as this process sees them."""
    stepped: Any = Stepped  # it takes the shape of any port
    store: Any = FaultyStore
    return Ports(
        clock=process.clock,
        broker=FaultyBroker(world, process),
        store=store(world, process),
        tasks=FaultyTasks(world, process),
        timers=stepped(world, process, world.timers),
        read_model=stepped(world, process, world.read_model),
        blobs=FaultyBlobs(world, process),
        routing=stepped(world, process, world.routing),
    )


class Stepped:
    """A port whose every call is a step before and after, and may find the store out of order."""

    def __init__(self, world: World, process: Process, inner: Any) -> None:
        self._world, self._process, self._inner = world, process, inner

    async def call(self, name: str, *args: Any, **named: Any) -> Any:
        world, process = self._world, self._process
        await world.step(process, f"before {name}")
        self.may_be_out(name)
        result = await getattr(self._inner, name)(*args, **named)
        await world.step(process, f"after {name}")
        return result

    def may_be_out(self, name: str) -> None:
        world = self._world
        if world.dice.strikes(world.dice.faults.outage):
            world.ledger.fault("outage", world.loop.time(), f"{self._process.name} {name}")
            raise StorageUnavailable("simulated")

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **named: Any) -> Any:
            return await self.call(name, *args, **named)

        return call


class FaultyBlobs(Stepped):
    """Who dies while it puts or removes one has done so, or not."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process, world.blobs)

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        self._world.watch.put(blob, data)
        await self.call("put", namespace, blob, data)

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        found: bytes | None = await self.call("get", namespace, blob)
        return found

    async def remove(self, namespace: str, blob: Blob) -> None:
        self._world.watch.removed(blob)
        await self.call("remove", namespace, blob)

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        self._world.watch.purged(workflow_id, run_id)
        await self.call("purge", namespace, workflow_id, run_id)


class FaultyTasks(Stepped):
    """Task records. A process that reads one has a view of its task as of then."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process, world.tasks)

    async def load(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        await self._world.step(self._process, "before task load")
        self.may_be_out("task load")
        loaded = at_once(self._world.tasks.load(namespace, task_id))
        self._world.ledger.saw(self._process.name, task_id)
        await self._world.step(self._process, "after task load")
        return loaded

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, *, ttl_ms: int | None = None
    ) -> bool:
        world, process = self._world, self._process
        dice = world.dice
        await world.step(process, "before task save")
        self.may_be_out("task save")
        unknown = dice.strikes(dice.faults.unknown_commit)
        if unknown:
            world.ledger.fault("unknown_save", world.loop.time(), process.name)
        if unknown and dice.rng.random() < 0.5:
            raise UnknownOutcome("simulated")
        saved = at_once(world.tasks.save(namespace, task_id, expected_version, record, ttl_ms=ttl_ms))
        await world.step(process, "after task save")
        if unknown:
            raise UnknownOutcome("simulated")
        return saved


class FaultyStore(Stepped):
    """Heads and histories. An unanswered write is applied, or not, or later: at the next serial operation."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process, world.store)

    def _settle(self, key: RunKey) -> None:
        world = self._world
        pending = world.pending.pop(key, None)
        if pending is not None and world.dice.rng.random() < 0.5:
            process, commit = pending
            self._apply(process, commit)

    def _apply(self, process: str, commit: Commit) -> bool:
        applied = at_once(self._world.store.commit(commit))
        if applied:
            self._world.ledger.committed(process, commit, self._world.clock.now())
            self._world.watch.committed(commit)
        return applied

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        await self._world.step(self._process, "before load")
        self.may_be_out("load")
        if self._world.dice.rng.random() < 0.5:  # a quorum's read may miss a commit in doubt, and leave it so
            self._settle(key)
        loaded = at_once(self._world.store.load(key))
        self._world.ledger.saw(self._process.name, key.workflow_id)
        await self._world.step(self._process, "after load")
        return loaded

    async def head(self, key: RunKey) -> Head:
        await self._world.step(self._process, "before head")
        self.may_be_out("head")
        self._settle(key)
        head = at_once(self._world.store.head(key))
        self._world.ledger.saw(self._process.name, key.workflow_id)
        await self._world.step(self._process, "after head")
        return head

    async def task_marks(self, key: RunKey, run_id: str, task_id: str) -> Sequence[Mark]:
        await self._world.step(self._process, "before marks")
        self.may_be_out("marks")
        self._settle(key)
        found = at_once(self._world.store.task_marks(key, run_id, task_id))
        self._world.ledger.saw(self._process.name, task_id)
        await self._world.step(self._process, "after marks")
        return found

    async def commit(self, commit: Commit) -> bool:
        world, process = self._world, self._process
        dice = world.dice
        await world.step(process, "before commit")
        self.may_be_out("commit")
        self._settle(commit.key)
        if dice.strikes(dice.faults.unknown_commit):
            world.ledger.fault("unknown_commit", world.loop.time(), f"{process.name} {commit.key.workflow_id}")
            chance = dice.rng.random()
            if chance < 0.34:
                self._apply(process.name, commit)
            elif chance < 0.67:
                world.pending[commit.key] = process.name, commit
            await world.step(process, "after unknown commit")
            raise UnknownOutcome("simulated")
        applied = self._apply(process.name, commit)
        if not applied:
            world.ledger.stats["lost_commit"] += 1
        await world.step(process, "after commit")
        return applied

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        await self._world.step(self._process, "before purge")
        self.may_be_out("purge")
        self._settle(key)
        purged = at_once(self._world.store.purge(key, run_id, expected_version, tombstone_ttl_ms))
        if purged:
            self._world.ledger.purged(key, run_id)
        await self._world.step(self._process, "after purge")
        return purged
