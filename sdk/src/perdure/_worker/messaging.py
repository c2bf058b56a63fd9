"""The worker's side of the broker: receives, dispatches, answers. No user code runs on its loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure._replay.code import WorkflowCode
from perdure._worker.answers import Answers
from perdure._worker.attempts import Attempts
from perdure._worker.histories import Opener
from perdure._worker.inlet import Inlet
from perdure._worker.live import CACHE_BYTES, LiveInstances
from perdure._worker.notices import Lacking
from perdure._worker.outbox import Answer, Outbox, Seal
from perdure._worker.task_time import RealTime, TaskTime
from perdure._worker.turn_flow import TurnFlow
from perdure._worker.turns import TurnDesk
from perdure._worker.user_side import UserSide
from perdure._worker.ward import Ward
from perdure.registry import Registry
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Broker, Clock, Delivery, SubscriptionType
from perdure_schemas import topics
from perdure_schemas.messages import AttemptCancelRequested, HistoryPage, WorkerHello

log = logging.getLogger("perdure.worker")

SUBSCRIPTION = "workers"
"""All workers share it: a turn or an attempt goes to one of them."""
HELLO_SECONDS = 10.0
"""Routing and the list of workers take three missed ones for the worker's end."""
SWEEP_SECONDS = 0.5
DRAIN_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker is made of."""

    broker: Broker
    registry: Registry
    clock: Clock
    ids: Callable[[], str]
    namespace: str
    build: str
    worker: str
    slots: int
    inline_turns: bool
    seal: Seal
    opener: Opener
    cache_bytes: int = CACHE_BYTES
    async_time: TaskTime | None = None
    """Of async tasks; the real one unless given."""
    tells_values: bool = True
    """Whether errors may tell arguments of tasks."""


class Session:
    """One life of a worker, from `open` to `close`. Made on the loop it lives on."""

    def __init__(self, setup: Setup, *, paused: bool = False) -> None:
        self._setup = setup
        self._paused = paused
        self._turning = asyncio.Lock()
        """Held while it is paused or resumed."""
        self._loop = asyncio.get_running_loop()
        self._publisher = setup.broker.publisher()
        self._outbox = Outbox(self._publisher, setup.seal)
        self._answers = Answers(namespace=setup.namespace, worker=setup.worker, clock=setup.clock, ids=setup.ids)
        self._async_time = setup.async_time or RealTime(self._loop)
        self._attempts = Attempts(
            setup.registry.tasks, self._outbox, self._answers, slots=setup.slots, async_time=self._async_time
        )
        self._codes: Mapping[str, WorkflowCode] = {n: found.code for n, found in setup.registry.workflows.items()}
        lacking = Lacking(setup.registry.tasks, setup.registry.workflows, elsewhere=setup.registry.elsewhere)
        self._turns = TurnFlow(self._outbox, self._answers, self._make_desk(), lacking, opener=setup.opener)
        self._user_side: UserSide | None = None
        self._inlets: list[Inlet] = []
        self._working: list[Inlet] = []
        """Those of work."""
        self._ward = Ward(setup.clock, lambda: not self._attempts.running and not self._turns.open)
        self._receivers: list[asyncio.Task[None]] = []
        """Of work. What is in progress needs the inbox to its end."""
        self._background: list[asyncio.Task[None]] = []

    def _make_desk(self) -> TurnDesk:
        setup = self._setup
        live = LiveInstances(setup.cache_bytes)
        return TurnDesk(
            self._codes,
            live,
            namespace=setup.namespace,
            build=setup.build,
            ids=setup.ids,
            tells_values=setup.tells_values,
        )

    # --- from open to close -------------------------------------------------------------------------

    async def open(self) -> None:
        setup, turns, attempts = self._setup, self._turns, self._attempts
        side = UserSide(
            self._make_desk,
            turns.done,
            lambda *how: attempts.ended.put(how),
            inline=setup.inline_turns,
            async_time=self._async_time,
        )
        self._user_side, turns.runner, attempts.executors = side, side.turns, side.executors
        inbox = await self._subscribe([self._answers.inbox], "inbox", "exclusive", ward=None)
        for needed in (self._ward.run(), inbox.receive(self._on_inbox(inbox))):
            self._background.append(self._loop.create_task(needed))
        workflows = [t for name in setup.registry.workflows for t in _both(topics.workflow_run, name, setup.build)]
        if workflows:
            turns.inlet = await self._subscribe_to_work(workflows, "key-shared")
            self._receive(turns.inlet.receive(turns.accept))
        tasks = [t for name in setup.registry.tasks for t in _both(topics.task_run, name, setup.build)]
        if tasks:
            attempts.inlet = await self._subscribe_to_work(tasks, "shared")
            self._receive(attempts.inlet.receive(attempts.accept, attempts.room))
        running = [self._outbox.run(), self._announce(), *(inlet.acks.run() for inlet in self._inlets)]
        running += [inlet.follow_marks() for inlet in self._inlets]
        self._background += [self._loop.create_task(coroutine) for coroutine in running]

    async def pause(self) -> None:
        """Receive no work: what was not received yet goes to others at once. What is in progress goes on."""
        self._paused = True
        async with self._turning:
            if self._paused:
                await asyncio.gather(*(inlet.pause() for inlet in self._working))

    async def resume(self) -> None:
        """Raises StorageUnavailable: it is paused as before."""
        async with self._turning:
            self._paused = False
            try:
                await asyncio.gather(*(inlet.resume() for inlet in self._working))
            except StorageUnavailable:
                self._paused = True
                await asyncio.gather(*(inlet.pause() for inlet in self._working))
                raise

    async def stop_receiving(self) -> None:
        """For good: nothing that waits here for others waits for what is in progress."""
        for receiver in self._receivers:
            receiver.cancel()
        await asyncio.gather(*self._receivers, return_exceptions=True)
        self._receivers.clear()
        self._background.append(self._loop.create_task(self.pause()))

    async def finish(self, grace_seconds: float) -> None:
        """Wait until all that was received is answered; then stop what is not: `close` hands it back."""
        deadline = self._loop.time() + grace_seconds
        while not self._idle() and self._loop.time() < deadline:  # noqa: ASYNC110  # once in a life
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        self._attempts.give_up()

    def _idle(self) -> bool:
        busy = self._attempts.running or self._turns.open or not self._outbox.idle
        return not busy and all(inlet.acks.idle for inlet in self._inlets)

    async def close(self) -> None:
        """Stop at once. What is not acknowledged goes to somebody else."""
        self._turns.histories.close()
        self._outbox.close()
        for task in (*self._receivers, *self._background):
            task.cancel()
        await asyncio.gather(*self._receivers, *self._background, return_exceptions=True)
        for inlet in self._inlets:
            await inlet.close()
        if self._user_side is not None:
            await self._user_side.close()

    async def failed(self) -> None:
        """Returns never; raises what ended one of the loops that must not end."""
        done, _ = await asyncio.wait([*self._receivers, *self._background], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    # --- receiving ----------------------------------------------------------------------------------

    async def _subscribe_to_work(self, names: Sequence[str], kind: SubscriptionType) -> Inlet:
        inlet = await self._subscribe(names, SUBSCRIPTION, kind, ward=self._ward)
        async with self._turning:
            self._working.append(inlet)
            if self._paused:
                await inlet.pause()
        return inlet

    async def _subscribe(
        self, names: Sequence[str], subscription: str, kind: SubscriptionType, *, ward: Ward | None
    ) -> Inlet:
        consumer = await self._setup.broker.subscribe(self._setup.namespace, names, subscription, kind)
        inlet = Inlet(consumer, self._outbox, self._publisher, namespace=self._setup.namespace, ward=ward)
        self._inlets.append(inlet)
        return inlet

    def _receive(self, receiving: Coroutine[Any, Any, None]) -> None:
        self._receivers.append(self._loop.create_task(receiving))

    def _on_inbox(self, inlet: Inlet) -> Callable[[list[Delivery]], None]:
        def handle(deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                match delivery.message.body:
                    case HistoryPage() as page:
                        self._turns.histories.receive(page)
                    case AttemptCancelRequested() as request:
                        self._attempts.cancel(request)
                    case _:
                        log.warning("inbox_ignored", extra={"action": "inbox_ignored"})
            inlet.acks.add(deliveries)

        return handle

    # --- now and then -------------------------------------------------------------------------------

    async def _announce(self) -> None:
        registry = self._setup.registry
        hello = WorkerHello(
            worker=self._setup.worker,
            build=self._setup.build,
            workflows=sorted(registry.workflows),
            tasks=sorted(registry.tasks),
            slots=self._setup.slots,
        )
        next_hello = 0.0
        while True:
            if self._loop.time() >= next_hello:
                next_hello = self._loop.time() + HELLO_SECONDS
                self._outbox.add(Answer([self._answers.hello(hello)]))
            self._attempts.announce_long()
            await asyncio.sleep(SWEEP_SECONDS)


def _both(topic: Callable[[str, str | None], str], name: str, build: str) -> tuple[str, str]:
    """The topic for any build, and the one for ours."""
    return topic(name, None), topic(name, build)
