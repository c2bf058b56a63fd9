"""Looks after open runs that nobody works on, whenever workers say that they are there.

A turn that was published may be lost with whoever took it (doubt D2 of the protocol), and a stuck turn waits up to
minutes for its next try although the worker that can run it has just come. So when a worker shows up its stuck runs
are looked at, and now and then those whose turn is overdue. A look changes nothing by itself: the workflow engine
asks for the turn again, if one is owed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from perdure_core.workflow_engine.requests import WAITS_FOR_WORKER
from perdure_runtime.poison import Intake, for_ever
from perdure_runtime.ports import Delivery, Ports, RunFilter
from perdure_schemas import ids, topics
from perdure_schemas.messages import Message, RunChanged, TimerFired, WorkerHello

OVERDUE_MS = 120_000
"""A turn takes seconds at most. The next look comes after twice the time: a run no worker can run costs little."""
SWEEP_MS = 60_000
WORKERS_MAX = 10_000
"""Workers remembered; the one heard of longest ago is forgotten first, and new when it comes again."""
PAGE_RUNS = 200


class Sweep:
    """One at a time, by its failover subscription. Without workers it does nothing: nobody could run a turn."""

    def __init__(self, ports: Ports, namespace: str) -> None:
        self._ports = ports
        self._namespace = namespace
        self._publisher = ports.broker.publisher()
        self._intake: Intake | None = None
        self._workers: dict[str, None] = {}
        self._swept: dict[str, int] = {}
        """Workflow name -> when its overdue runs were last looked for."""

    async def run(self) -> None:
        """Consume until canceled."""
        consumer = await self._ports.broker.subscribe(self._namespace, [topics.WORKER_HELLO], "sweep", "failover")
        self._intake = Intake(consumer, self._publisher, self._namespace)
        try:
            await for_ever(self._take)
        finally:
            await consumer.close()

    async def _take(self) -> None:
        assert self._intake is not None
        batch = await self._intake.receive()
        if batch:
            await self._intake.handle(batch, self._heard)

    async def _heard(self, batch: Sequence[Delivery]) -> None:
        assert self._intake is not None
        for delivery in batch:
            body = delivery.message.body
            if not isinstance(body, WorkerHello):
                raise TypeError(f"{type(body).__name__} is no greeting of a worker")
            await self._greet(body)
        await self._intake.ack(batch)

    async def _greet(self, hello: WorkerHello) -> None:
        now = self._ports.clock.now()
        for name in hello.workflows:
            if hello.worker not in self._workers:
                await self._look([run async for run in self._listed(name, "stuck") if run.build in (None, hello.build)])
            since = self._swept.get(name)
            if since is None or now - since >= SWEEP_MS:
                waiting = [run async for run in self._listed(name, "running", WAITS_FOR_WORKER)]
                await self._look([run for run in waiting if _is_overdue(now - run.changed_at, SWEEP_MS)])
                self._swept[name] = now
        self._workers.pop(hello.worker, None)
        self._workers[hello.worker] = None
        if len(self._workers) > WORKERS_MAX:
            del self._workers[next(iter(self._workers))]

    async def _listed(self, name: str, status: str, waits_for: str | None = None) -> AsyncIterator[RunChanged]:
        where = RunFilter(name=name, status=status, waits_for=waits_for)
        cursor: str | None = None
        while True:
            page = await self._ports.read_model.list_runs(self._namespace, where, PAGE_RUNS, cursor)
            for run in page.runs:
                yield run
            cursor = page.cursor
            if cursor is None:
                return

    async def _look(self, runs: Sequence[RunChanged]) -> None:
        now = self._ports.clock.now()
        looks = [(topics.WORKFLOW_ENGINE, self._message(run, now)) for run in runs]
        if looks:
            await self._publisher.publish(looks)

    def _message(self, run: RunChanged, now: int) -> Message:
        look = TimerFired(workflow_id=run.workflow_id, run_id=run.run_id, kind="turn", generation=run.generation)
        return Message(
            id=ids.derive_id(run.run_id, "look", now),
            namespace=self._namespace,
            key=run.workflow_id,
            at=now,
            body=look,
            emitter="sweep",
        )


def _is_overdue(age_ms: int, interval_ms: int) -> bool:
    """Whether, since the sweep before, the age went past OVERDUE_MS times a power of two."""
    return (age_ms // OVERDUE_MS).bit_length() > (max(0, age_ms - interval_ms) // OVERDUE_MS).bit_length()
