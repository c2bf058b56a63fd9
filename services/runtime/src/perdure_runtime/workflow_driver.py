"""The workflow engine's shell: load, decide, commit, publish, acknowledge.

Messages of one workflow id are handled one after the other, those of different ids together: a *round* takes
what came in, decides it all, commits side by side, then publishes the effects of all commits in one batch,
then acknowledges in one batch. So the order of protocol rule 2 holds for each id, and load makes batches.

An actor needs at most one awaited step per round (load, refresh, commit); messages behind it wait for the next.

What no outage explains is the fault of one run. Which one, rounds of a single actor tell: there its messages are
counted and buried, and the others of the round go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from perdure_core import blobs as whose
from perdure_core.workflow_engine.requests import unsendable
from perdure_runtime.actor import Actor
from perdure_runtime.blobs import Custody
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.poison import FAILED_DELAY_MS, FAILING_MAX, OUTAGE_DELAY_MS, Intake, for_ever
from perdure_runtime.ports import Delivery, Ports
from perdure_runtime.workflow_commits import Commits, want_turn
from perdure_runtime.workflow_decider import Decider
from perdure_runtime.workflow_round import HOLD_MAX_MS, Round
from perdure_runtime.workflow_slow import SlowDecisions
from perdure_runtime.workflow_supervision import Supervision
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
        self._supervision = Supervision(self.views, self._begin_alone)
        self._commits = Commits(ports.store, self.views, self._supervision, owner)
        self._custody = Custody(ports, namespace)
        self._slow = SlowDecisions(ports, self._commits, self._publisher, self._custody)
        self._decider = Decider(ports.store, self.views, intake, self._flush)
        self._running: set[asyncio.Task[None]] = set()
        self._apart: dict[str, None] = {}
        """Workflow ids that get rounds of their own: one of them made a round fail, or cannot be published whole."""
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
        for key in idle.keys() & self._apart.keys():
            self._begin([idle.pop(key)])
        if idle:
            self._begin(list(idle.values()))

    async def close(self) -> None:
        """Let what is under way end, for as long as a message may be held."""
        self._closing = True
        self._supervision.close()
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
        if not actor.busy and self.views.find(actor.key.workflow_id) is actor:
            self._begin_alone(actor)

    def _begin_alone(self, actor: Actor) -> None:
        if not self._closing:
            actor.busy = True
            self._begin([actor])

    async def _run(self, actors: list[Actor]) -> None:
        """Round after round, with the actors that have more to do."""
        while actors:
            this = Round()
            try:
                await self._round(actors, this)
                actors = [actor for actor in actors if self._has_more(actor)]
            except (StorageUnavailable, UnknownOutcome) as error:
                log.warning("round failed", extra={"action": "round_outage", "error": str(error)})
                self._intake.hand_back(this.in_hand(), OUTAGE_DELAY_MS)
                self.views.drop(actors, OUTAGE_DELAY_MS)
                return
            except Exception as error:
                await self._failed(actors, this, error)
                return

    async def _failed(self, actors: list[Actor], this: Round, error: Exception) -> None:
        """Some run's fault: each is tried again by itself. Of a run alone, the messages are counted, then buried."""
        self._set_apart(actors)
        if len(actors) > 1:
            log.error("round failed", extra={"action": "round_failed", "error": str(error)}, exc_info=error)
            self._intake.hand_back(this.in_hand(), FAILED_DELAY_MS)
            self.views.drop(actors, FAILED_DELAY_MS)
            return
        actor = actors[0]
        at_fault = dict.fromkeys([*this.in_hand(), *actor.release()] or actor.take())
        self.views.drop(actors, FAILED_DELAY_MS)
        for delivery in at_fault:
            await self._intake.failed(delivery, error)

    def _set_apart(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            self._apart[actor.key.workflow_id] = None
        while len(self._apart) > FAILING_MAX:
            del self._apart[next(iter(self._apart))]

    async def _round(self, actors: list[Actor], this: Round) -> None:
        """Decide, commit what was decided, publish all of it, acknowledge all of it: in this order (rule 2)."""
        batches = [(actor, actor.take()) for actor in reversed(actors)]
        try:
            await self.views.freshen(batches)
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
            self._supervision.publish(actor, this)
        if this.blobs:
            await this.patience.through(lambda: self._custody.keep(this.blobs))
        if this.publish:
            if any(whose.lends(message) for _, message in this.publish):
                this.publish = await this.patience.through(lambda: self._custody.lend(this.publish))
            await self._publish(actors, this)
        if this.acks:
            await self._intake.ack(this.acks)

    async def _publish(self, actors: list[Actor], this: Round) -> None:
        """All at once. What a run alone cannot publish so, it publishes singly, and stays apart."""
        try:
            await this.patience.through(lambda: self._publisher.publish(this.publish))
        except (StorageUnavailable, UnknownOutcome):
            raise
        except Exception:
            if len(actors) > 1:
                raise
            self._set_apart(actors)
            await self._publish_singly(this)
        else:
            if self._apart and len(actors) == 1:
                self._apart.pop(actors[0].key.workflow_id, None)

    async def _publish_singly(self, this: Round) -> None:
        """What can be, is published. A turn that no worker can be asked for makes the run stuck.

        Raises:
            Exception: of the last other message that cannot be.
        """
        problem: Exception | None = None
        for one in this.publish:
            try:
                await self._publisher.publish([one])
            except (StorageUnavailable, UnknownOutcome):
                raise
            except Exception as error:
                instead = unsendable(one[1], error)
                if instead is None:
                    problem = error
                    continue
                await self._publisher.publish([instead])
        if problem is not None:
            raise problem

    def _has_more(self, actor: Actor) -> bool:
        if actor.inbox or actor.flush_due or actor.refresh_due or actor.unsupervised:
            return True
        if self.views.find(actor.key.workflow_id) is actor:
            self.views.rest(actor)
        return False
