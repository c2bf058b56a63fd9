"""The workflow engine's shell: load, decide, commit, publish, acknowledge.

Messages of one workflow id are handled one after the other, those of different ids together: a *round* takes
what came in, decides it all, commits side by side, then publishes the effects of all commits in one batch,
then acknowledges in one batch. So the order of protocol rule 2 holds for each id, and load makes batches.

An actor needs at most one awaited step per round (load, refresh, commit); messages behind it wait for the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from perdure_runtime.actor import Actor
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.poison import OUTAGE_DELAY_MS, Intake, for_ever
from perdure_runtime.ports import Delivery, Ports
from perdure_runtime.workflow_commits import Commits, want_turn
from perdure_runtime.workflow_decider import Decider
from perdure_runtime.workflow_round import HOLD_MAX_MS, Round
from perdure_runtime.workflow_slow import SlowDecisions
from perdure_runtime.workflow_views import Views
from perdure_schemas import topics

log = logging.getLogger("perdure.workflow_engine")


class WorkflowEngine:
    """One replica. Any number may run: the compare-and-set of each commit decides between them."""

    def __init__(self, ports: Ports, namespace: str, owner: str) -> None:
        self._ports = ports
        self._namespace = namespace
        self._owner = owner

    async def run(self) -> None:
        """Consume until canceled."""
        broker = self._ports.broker
        consumer = await broker.subscribe(self._namespace, [topics.WORKFLOW_ENGINE], "workflow-engine", "key-shared")
        intake = Intake(consumer, broker.publisher(), self._namespace)
        rounds = Rounds(self._ports, intake, self._namespace, self._owner)

        async def take() -> None:
            rounds.take(await intake.receive())

        try:
            await for_ever(take)
        finally:
            await rounds.close()
            await consumer.close()


class Rounds:
    """The rounds under way. Two of them never hold the same actor."""

    def __init__(self, ports: Ports, intake: Intake, namespace: str, owner: str) -> None:
        self._publisher = ports.broker.publisher()
        self._intake = intake
        self.views = Views(ports, namespace, intake)
        self._commits = Commits(ports.store, self.views, owner)
        self._slow = SlowDecisions(ports, self._commits)
        self._decider = Decider(ports.store, self.views, intake, self._flush)
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False

    def take(self, batch: Sequence[Delivery]) -> None:
        """Begin a round with what came; what belongs to a round under way waits for its next one."""
        idle: dict[str, Actor] = {}
        for delivery in batch:
            key = delivery.message.key
            actor = self.views.find(key)
            if actor is None or not actor.busy:
                actor = idle[key] = self.views.reserve(key)
            actor.inbox.append(delivery)
        if idle:
            self._begin(list(idle.values()))

    async def close(self) -> None:
        """Let what is under way end, for as long as a message may be held."""
        self._closing = True
        if self._running:
            await asyncio.wait(self._running, timeout=HOLD_MAX_MS / 1000)
        self.views.clear()

    def _begin(self, actors: list[Actor]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(actors))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _flush(self, actor: Actor) -> None:
        """A message has been held for as long as one may be."""
        actor.flush_timer = None
        actor.flush_due = True
        if not actor.busy and not self._closing and self.views.find(actor.key.workflow_id) is actor:
            actor.busy = True
            self._begin([actor])

    async def _run(self, actors: list[Actor]) -> None:
        """Round after round, with the actors that have more to do."""
        while actors:
            this = Round()
            try:
                await self._round(actors, this)
                actors = [actor for actor in actors if self._has_more(actor)]
            except Exception as error:
                outage = isinstance(error, StorageUnavailable)
                extra = {"action": "round_outage" if outage else "round_failed", "error": str(error)}
                log.log(logging.WARNING if outage else logging.ERROR, "round failed", extra=extra, exc_info=not outage)
                self._intake.hand_back(this.in_hand(), OUTAGE_DELAY_MS)
                self.views.drop(actors, OUTAGE_DELAY_MS)
                actors = []

    async def _round(self, actors: list[Actor], this: Round) -> None:
        """Decide, commit what was decided, publish all of it, acknowledge all of it: in this order (rule 2)."""
        batches = [(actor, actor.take()) for actor in reversed(actors)]
        try:
            await self.views.freshen(actors)
            while batches:
                await self._decider.decide_all(*batches.pop(), this)
        except Exception:
            for actor, batch in batches:
                actor.put_back(batch)
            raise
        await self._commits.all_of(this)
        for actor, delivery, decision in this.slow:
            await self._slow.carry_out(actor, delivery, decision, this)
        for actor in actors:
            want_turn(actor, this)
        if this.publish:
            await self._publisher.publish(this.publish)
        if this.acks:
            await self._intake.ack(this.acks)

    def _has_more(self, actor: Actor) -> bool:
        if actor.inbox or actor.flush_due or actor.refresh_due:
            return True
        if self.views.find(actor.key.workflow_id) is actor:
            self.views.rest(actor)
        return False
