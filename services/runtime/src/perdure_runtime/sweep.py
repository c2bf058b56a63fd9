"""Looks after open runs that nobody works on, whenever workers say that they are there.

A turn that was published may be lost with whoever took it (doubt D2 of the protocol), and a stuck turn waits up to
minutes for its next try although the worker that can run it has just come. So when a worker shows up its stuck runs
are looked at, and now and then those whose turn is overdue. A look changes nothing by itself: the workflow engine
asks for the turn again, if one is owed.

A stuck run that is pinned to another build is rescued by the workflow's current one: a worker of it is asked to
replay the run, which moves there if that succeeds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from perdure_core.workflow_engine.requests import WAITS_FOR_WORKER
from perdure_runtime.poison import Intake, for_ever
from perdure_runtime.ports import Delivery, Ports, RunFilter
from perdure_schemas import ids, topics
from perdure_schemas.messages import Body, Message, MoveRun, RunChanged, TimerFired, WorkerHello

OVERDUE_MS = 120_000
"""A turn takes seconds at most. The next look comes after twice the time: a run no worker can run costs little."""
SWEEP_MS = 60_000
WORKERS_MAX = 10_000
"""Workers remembered; the one heard of longest ago is forgotten first, and new when it comes again."""
PAGE_RUNS = 200
DEADLY = "WorkerDied:"
"""How the error of a run begins whose turns kill workers. Each death brings a new worker, which it would kill at once:
it is tried again by its back-off alone, so that others get on in the pauses."""


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
        self._current: dict[str, str] = {}
        """Workflow name -> the build that its stuck runs were last moved to."""

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
        await self._intake.take(self._heard)

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
                stuck = [run async for run in self._listed(name, "stuck") if run.build in (None, hello.build)]
                await self._look([run for run in stuck if not run.last_error.startswith(DEADLY)])
            since = self._swept.get(name)
            due = since is None or now - since >= SWEEP_MS
            await self._rescue(name, hello, due=due)
            if due:
                waiting = [run async for run in self._listed(name, "running", WAITS_FOR_WORKER)]
                await self._look([run for run in waiting if _is_overdue(now - run.changed_at, SWEEP_MS)])
                self._swept[name] = now
        self._workers.pop(hello.worker, None)
        self._workers[hello.worker] = None
        if len(self._workers) > WORKERS_MAX:
            del self._workers[next(iter(self._workers))]

    async def _rescue(self, name: str, hello: WorkerHello, *, due: bool) -> None:
        """Stuck runs of other builds, if this worker is of the current one: all if it or the build is new."""
        current = (await self._ports.routing.get(self._namespace, name)).current
        if current is None or current != hello.build:
            return
        news = hello.worker not in self._workers or self._current.get(name) != current
        if not news and not due:
            return
        self._current[name] = current
        now = self._ports.clock.now()
        others = [run async for run in self._listed(name, "stuck") if run.build not in (None, current)]
        stuck = [run for run in others if news or _is_overdue(now - run.changed_at, SWEEP_MS)]
        moves = [(topics.WORKFLOW_ENGINE, self._move(run, current, now)) for run in stuck]
        if moves:
            await self._publisher.publish(moves)

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
        looks = [(topics.WORKFLOW_ENGINE, self._looked(run, now)) for run in runs]
        if looks:
            await self._publisher.publish(looks)

    def _move(self, run: RunChanged, build: str, now: int) -> Message:
        move = MoveRun(
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            build=build,
            reason=f"rescued: it was stuck on build {run.build}",
            actor="sweep",
            rescue=True,
        )
        return self._message(run, ids.derive_id(run.run_id, "rescue", now), now, move)

    def _looked(self, run: RunChanged, now: int) -> Message:
        look = TimerFired(workflow_id=run.workflow_id, run_id=run.run_id, kind="turn", generation=run.generation)
        return self._message(run, ids.derive_id(run.run_id, "look", now), now, look)

    def _message(self, run: RunChanged, id: str, now: int, body: Body) -> Message:
        return Message(
            id=id,
            namespace=self._namespace,
            key=run.workflow_id,
            at=now,
            body=body,
            emitter="sweep",
        )


def _is_overdue(age_ms: int, interval_ms: int) -> bool:
    """Whether, since the sweep before, the age went past OVERDUE_MS times a power of two."""
    return (age_ms // OVERDUE_MS).bit_length() > (max(0, age_ms - interval_ms) // OVERDUE_MS).bit_length()
