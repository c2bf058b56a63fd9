"""The workflow engine's shell: load, decide, commit, publish, acknowledge.

Messages of one workflow id are handled one after the other, those of different ids together: a *round* takes
what came in, decides it all, commits side by side, then publishes the effects of all commits in one batch,
then acknowledges in one batch. So the order of protocol rule 2 holds for each id, and load makes batches.

An actor needs at most one awaited step per round (load, refresh, commit); messages behind it wait for the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import assert_never

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.decide import decide
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import reply, run_result
from perdure_core.workflow_engine.requests import run_changed, workflow_task
from perdure_core.workflow_engine.rewind import decide_rewind, resume_parent
from perdure_runtime.actor import Actor, actor_of
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.poison import OUTAGE_DELAY_MS, FailureCounts, bury_bytes
from perdure_runtime.ports import Commit, Consumer, Delivery, Ports, RunKey, Undeliverable
from perdure_runtime.workflow_reads import earlier_end, history_page, reemit, reemit_termination, route, run_purged
from perdure_runtime.workflow_round import (
    ACTORS_MAX,
    AHEAD_DELAY_MS,
    HOLD_MAX_MS,
    LATER_DELAY_MS,
    LOST_DELAY_MS,
    START_HOLD_MAX_MS,
    TOMBSTONE_TTL_MS,
    UNBORN_TTL_MS,
    UNLOADED,
    WORKFLOW_BODIES,
    Round,
)
from perdure_schemas import topics
from perdure_schemas.events import Recorded, RunEnded
from perdure_schemas.messages import (
    ResumeRun,
    StartWorkflow,
    WorkflowMessage,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)

log = logging.getLogger("perdure.workflow_engine")


class WorkflowEngine:
    """One replica. Any number may run: the compare-and-set of each commit decides between them."""

    def __init__(self, ports: Ports, namespace: str, owner: str) -> None:
        self._ports = ports
        self._namespace = namespace
        self._owner = owner
        self._publisher = ports.broker.publisher()
        self._actors: dict[str, Actor] = {}
        self._failures = FailureCounts()
        self._rounds: set[asyncio.Task[None]] = set()
        self._consumer: Consumer | None = None
        self._tries = 0
        self._closing = False

    # -- lifecycle ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until canceled."""
        broker = self._ports.broker
        self._consumer = await broker.subscribe(
            self._namespace, [topics.WORKFLOW_ENGINE], "workflow-engine", "key-shared"
        )
        try:
            while True:
                await self._take(await self._consumer.receive())
        finally:
            self._closing = True
            await self._close()

    async def _close(self) -> None:
        if self._rounds:
            await asyncio.wait(self._rounds, timeout=HOLD_MAX_MS / 1000)
        for actor in list(self._actors.values()):
            self._forget(actor)
        if self._consumer is not None:
            await self._consumer.close()

    async def _take(self, batch: Sequence[Delivery | Undeliverable]) -> None:
        work: dict[str, list[Delivery]] = {}
        for delivery in batch:
            if isinstance(delivery, Undeliverable):
                assert self._consumer is not None
                await bury_bytes(self._publisher, self._consumer, self._namespace, delivery)
                continue
            key = delivery.message.key
            actor = self._actors.get(key)
            if actor is not None and actor.busy:
                actor.inbox.append(delivery)
            else:
                work.setdefault(key, []).append(delivery)
        if work:
            self._begin(work)

    def _begin(self, work: dict[str, list[Delivery]]) -> None:
        placeholders = {key: self._reserve(key) for key in work}
        task = asyncio.get_running_loop().create_task(self._rounds_of(placeholders, work))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    def _reserve(self, key: str) -> Actor:
        """The key's actor, marked busy; a stand-in with version -1 until it is loaded."""
        actor = self._actors.get(key)
        if actor is None:
            actor = actor_of(RunKey(self._namespace, key), UNLOADED, ())
            self._actors[key] = actor
        actor.busy = True
        return actor

    # -- rounds ------------------------------------------------------------------------------------

    async def _rounds_of(self, actors: dict[str, Actor], work: dict[str, list[Delivery]]) -> None:
        for key, deliveries in work.items():
            actors[key].inbox.extend(deliveries)
        current = list(actors.values())
        while current:
            try:
                current = await self._round(current)
            except StorageUnavailable as error:
                log.warning("storage unavailable", extra={"action": "round_outage", "error": str(error)})
                self._drop(current, OUTAGE_DELAY_MS)
                current = []
            except Exception:
                log.exception("round failed", extra={"action": "round_failed"})
                self._drop(current, OUTAGE_DELAY_MS)
                current = []

    async def _round(self, actors: list[Actor]) -> list[Actor]:
        """One round; returns the actors that have more to do."""
        unloaded = [actor for actor in actors if actor.head.version < 0]
        if unloaded:
            await asyncio.gather(*(self._load(actor) for actor in unloaded))
        with self._gathering() as this:
            for actor in actors:
                await self._decide_inbox(actor, this)
            for actor, delivery in this.refresh:
                await self._refresh(actor, delivery)
            await self._finish(actors, this)
        return [actor for actor in actors if self._has_more(actor)]

    @contextmanager
    def _gathering(self) -> Iterator[Round]:
        """A round that, should it fail, hands back what it had taken from the inboxes."""
        this = Round()
        try:
            yield this
        except Exception:
            self._nack(this.in_hand(), OUTAGE_DELAY_MS)
            raise

    async def _finish(self, actors: Sequence[Actor], this: Round) -> None:
        """Commit what was decided, publish all of it, acknowledge all of it: in this order (protocol rule 2)."""
        await self._commit_all(this)
        for actor, delivery, decision in this.slow:
            await self._carry_out(actor, delivery, decision, this)
        for actor in actors:
            self._want_turn(actor, this)
        if this.publish:
            await self._publisher.publish(this.publish)
        if this.acks:
            await self._ack(this.acks)

    def _has_more(self, actor: Actor) -> bool:
        actor.fresh = False
        if actor.inbox or actor.flush_due:
            return True
        actor.busy = False
        if actor.head.version < 0 or (actor.state.ended is not None and not actor.held):
            self._forget(actor)
        elif len(self._actors) > ACTORS_MAX:
            self._evict()
        return False

    def _evict(self) -> None:
        """Forget the idle actors that were touched longest ago."""
        for key in list(self._actors)[: ACTORS_MAX // 10]:
            actor = self._actors[key]
            if not actor.busy and not actor.held and not actor.waiters:
                self._forget(actor)

    def _forget(self, actor: Actor) -> None:
        if actor.flush_timer is not None:
            actor.flush_timer.cancel()
        if self._actors.get(actor.key.workflow_id) is actor:
            del self._actors[actor.key.workflow_id]

    def _drop(self, actors: Iterable[Actor], delay_ms: int) -> None:
        """Lost, or in doubt: forget the view, hand every message back."""
        for actor in actors:
            back = [*actor.release(), *actor.inbox]
            actor.inbox = []
            actor.busy = False
            self._forget(actor)
            self._nack(back, delay_ms)

    def _lose(self, actor: Actor) -> None:
        """Another replica was first, or the view cannot be trusted: its messages come again soon."""
        self._drop([actor], LOST_DELAY_MS)
        actor.head = UNLOADED

    def _nack(self, deliveries: Sequence[Delivery], delay_ms: int) -> None:
        if deliveries and self._consumer is not None:
            task = asyncio.get_running_loop().create_task(self._consumer.nack(deliveries, delay_ms))
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)

    async def _ack(self, deliveries: Sequence[Delivery]) -> None:
        assert self._consumer is not None
        await self._consumer.ack(deliveries)
        for delivery in deliveries:
            self._failures.forget(delivery.message.id)

    # -- loading -----------------------------------------------------------------------------------

    async def _load(self, actor: Actor) -> None:
        head, history = await self._ports.store.load(actor.key)
        loaded = actor_of(actor.key, head, history)
        actor.head, actor.state, actor.committed = loaded.head, loaded.state, loaded.committed
        actor.fresh, actor.buffer, actor.turn_hash = True, [], ""

    async def _refresh(self, actor: Actor, delivery: Delivery) -> None:
        """Make the view one of this handling: commit the buffer, or compare the version and reload."""
        actor.inbox.insert(0, delivery)
        if actor.buffer:
            actor.flush_due = True
            return
        if await self._ports.store.version(actor.key) != actor.head.version:
            await self._load(actor)
        actor.fresh = True
        await self._decide_again(actor)

    async def _decide_again(self, actor: Actor) -> None:
        """The message at the front of the inbox, on a view that is fresh now: in the same handling."""
        with self._gathering() as this:
            await self._decide_inbox(actor, this)
            for _, delivery in this.refresh:  # of another message, behind this one: in the next round
                actor.inbox.insert(0, delivery)
            this.refresh.clear()
            await self._finish([actor], this)

    # -- deciding ----------------------------------------------------------------------------------

    async def _decide_inbox(self, actor: Actor, this: Round) -> None:
        if actor.flush_due:
            if actor.buffer:
                this.commits.append(actor)
                return
            actor.flush_due = False
        while actor.inbox:
            delivery = actor.inbox.pop(0)
            try:
                if not await self._decide(actor, delivery, this):
                    return
            except (StorageUnavailable, UnknownOutcome):
                actor.inbox.insert(0, delivery)
                raise
            except Exception as error:
                await self._failed(actor, delivery, error, this)
                return

    async def _decide(self, actor: Actor, delivery: Delivery, this: Round) -> bool:
        """Decide one message; false when the actor must not go on in this round."""
        message = delivery.message
        body = message.body
        if not isinstance(body, WORKFLOW_BODIES):
            raise TypeError(f"{type(body).__name__} is no message of the workflow engine")
        context = await self._context(actor, body)
        decision = decide(actor.state, message, body, context)
        if isinstance(body, WorkflowTaskCompleted | WorkflowTaskFailed) and actor.turn_hash == body.base_hash:
            actor.turn_hash = ""
        return await self._sort(actor, delivery, decision, this)

    async def _sort(self, actor: Actor, delivery: Delivery, decision: d.Decision, this: Round) -> bool:
        """Carry out what can be at once, queue what must wait for a commit or a fresh view."""
        match decision:
            case d.Record():
                return await self._record(actor, delivery, decision, this)
            case d.Attached():
                actor.held.append(delivery)
                self._arm_flush(actor, HOLD_MAX_MS)
                return True
            case d.Later():
                self._nack([delivery], LATER_DELAY_MS)
                return True
            case _ if not actor.fresh or actor.buffer:
                this.refresh.append((actor, delivery))
                return False
            case d.Discard() if decision.reason not in ("already-started", "unknown-run", "not-applicable"):
                this.slow.append((actor, delivery, decision))
                return False
            case d.Discard() | d.Serve():
                this.publish.extend(decision.publish)
                this.acks.append(delivery)
                return True
            case d.Refuse():
                this.acks.append(delivery)
                return True
            case d.Ahead():
                self._nack([delivery], AHEAD_DELAY_MS)
                return True
            case _:
                this.slow.append((actor, delivery, decision))
                return False

    async def _context(self, actor: Actor, body: WorkflowMessage) -> d.Context:
        build, purged = None, False
        if isinstance(body, StartWorkflow) and (actor.state.started is None or actor.state.ended is not None):
            routing = await self._ports.routing.get(self._namespace, body.name)
            build = route(routing, body.workflow_id)
            if body.run_id != actor.state.run_id:
                purged = await self._ports.store.tombstone(actor.key, body.run_id)
        return d.Context(now=self._ports.clock.now(), committed=actor.committed, build=build, purged=purged)

    async def _record(self, actor: Actor, delivery: Delivery, decision: d.Record, this: Round) -> bool:
        message = delivery.message
        if actor.head.runs > (0 if decision.begins_run else 1):
            elsewhere = await self._ports.store.find_cause(actor.key, message.id)
            if elsewhere is not None:
                this.publish += await reemit(self._ports.store, actor, elsewhere, message.id)
                this.acks.append(delivery)
                return True
        if decision.begins_run:
            this.publish += await reemit_termination(self._ports.store, actor, message)
            waiters = actor.waiters
            actor.begin_run()
            actor.waiters = waiters
        actor.append(decision.events, message, decision.cause)
        for carried in decision.carried:
            actor.append([carried.event], message, carried.cause)
        if decision.again:
            actor.inbox.insert(0, delivery)
            this.commits.append(actor)
            return False
        actor.held.append(delivery)
        if decision.now:
            this.commits.append(actor)
            return False
        self._arm_flush(actor, START_HOLD_MAX_MS if decision.begins_run else HOLD_MAX_MS)
        return True

    def _arm_flush(self, actor: Actor, after_ms: int) -> None:
        if actor.flush_timer is None:
            loop = asyncio.get_running_loop()
            actor.flush_timer = loop.call_later(after_ms / 1000, self._flush, actor)

    def _flush(self, actor: Actor) -> None:
        actor.flush_timer = None
        actor.flush_due = True
        if not actor.busy and not self._closing and self._actors.get(actor.key.workflow_id) is actor:
            self._begin({actor.key.workflow_id: []})

    def _want_turn(self, actor: Actor, this: Round) -> None:
        state = actor.state
        if actor.turn_hash or actor.head.version < 0 or not state.needs_turn():
            return
        actor.turn_hash = state.hashes[state.seq]
        this.publish.append(workflow_task(state, actor.committed))

    # -- committing --------------------------------------------------------------------------------

    async def _commit_all(self, this: Round) -> None:
        if len(this.commits) == 1:
            results = [await self._commit(this.commits[0])]
        else:
            results = await asyncio.gather(*(self._commit(actor) for actor in this.commits))
        for actor, events in zip(this.commits, results, strict=True):
            if events is None:
                self._lose(actor)
            else:
                self._committed(actor, events, this)

    async def _commit(self, actor: Actor) -> list[Recorded] | None:
        head = actor.next_head()
        self._tries += 1
        commit = Commit(
            key=actor.key,
            expected_version=actor.head.version,
            head=head,
            events=actor.buffer,
            commit_id=f"{self._owner}-{self._tries}",
            unborn_ttl_ms=UNBORN_TTL_MS if actor.state.started is None else None,
        )
        try:
            if await self._ports.store.commit(commit):
                return actor.commit_done(head)
        except UnknownOutcome:
            log.warning(
                "commit outcome unknown", extra={"action": "commit_unknown", "workflow_id": actor.key.workflow_id}
            )
        return None

    def _committed(self, actor: Actor, events: list[Recorded], this: Round) -> None:
        state = actor.state
        held = actor.release()
        if state.started is not None:
            this.publish.extend(effects(state, events))
            this.publish.append(run_changed(state, actor.head.version, events))
        for delivery in held:
            this.publish.extend(reply(state, delivery.message, "ok"))
        if state.ended is not None:
            this.publish.extend(run_result(state, state.ended, waiter) for waiter in actor.waiters)
            actor.waiters = []
        if actor.turn_hash and state.needs_turn():
            actor.turn_hash = ""  # protocol rule 15: an early flush publishes the turn again, on the committed base
        this.acks.extend(held)

    # -- the rest ----------------------------------------------------------------------------------

    async def _carry_out(  # noqa: C901, PLR0912 - one branch per member of a closed union
        self, actor: Actor, delivery: Delivery, decision: d.Decision, this: Round
    ) -> None:
        """Decisions that read more, on a fresh and committed view."""
        message, state = delivery.message, actor.state
        match decision:
            case d.AlreadyRecorded(seq=seq):
                this.publish += await reemit(self._ports.store, actor, (state.run_id, seq), message.id)
                this.publish += await reemit_termination(self._ports.store, actor, message)
                this.publish += reply(state, message, "ok")
                actor.turn_hash = ""
            case d.Discard():
                elsewhere = await self._ports.store.find_cause(actor.key, message.id)
                if elsewhere is not None:
                    this.publish += await reemit(self._ports.store, actor, elsewhere, message.id)
                this.publish.extend(decision.publish)
            case d.RunTurn(attempt=attempt):
                this.publish.append(workflow_task(state, actor.committed, attempt=attempt))
            case d.AskWorker(query=query):
                this.publish.append(workflow_task(state, actor.committed, queries=[query]))
            case d.SendHistory():
                this.publish.append(await history_page(self._ports.store, actor, message))
            case d.AwaitEnd(reply_topic=topic):
                if topic not in actor.waiters:
                    actor.waiters.append(topic)
            case d.FindEnd(run_id=run_id):
                this.publish += await earlier_end(self._ports.store, actor, run_id, message)
            case d.Rewind(request=request):
                if not await self._rewind(actor, delivery, request, this):
                    return
            case d.Purge(run_id=run_id):
                await self._purge(actor, run_id, this)
            case d.Record() | d.Attached() | d.Ahead() | d.Later() | d.Refuse() | d.Serve():
                raise AssertionError(f"{decision} is carried out at once")
            case _:
                assert_never(decision)
        this.acks.append(delivery)

    async def _rewind(self, actor: Actor, delivery: Delivery, body: ResumeRun, this: Round) -> bool:
        _, history = await self._ports.store.load(actor.key)
        ended: RunEnded | None = actor.state.ended
        decision = decide_rewind(actor.state, delivery.message, body, history)
        if not isinstance(decision, d.Record):
            assert isinstance(decision, d.Discard)
            this.publish.extend(decision.publish)
            return True
        actor.rewind(history, decision.events, delivery.message)
        actor.held.append(delivery)
        events = await self._commit(actor)
        if events is None:
            self._lose(actor)
            return False
        this.publish += resume_parent(actor.state, delivery.message, body, ended)
        self._committed(actor, events, this)
        return False

    async def _purge(self, actor: Actor, run_id: str, this: Round) -> None:
        name = actor.state.started.name if actor.state.started is not None else ""
        if not await self._ports.store.purge(actor.key, run_id, actor.head.version, TOMBSTONE_TTL_MS):
            raise StorageUnavailable("the run changed while it was being purged")
        this.publish.append(run_purged(actor, run_id, name, self._ports.clock.now()))
        actor.head = UNLOADED

    # -- poison ------------------------------------------------------------------------------------

    async def _failed(self, actor: Actor, delivery: Delivery, error: Exception, this: Round) -> None:
        """Count the failure; a message that always fails leaves its key free."""
        message = delivery.message
        extra = {"action": "message_failed", "workflow_id": message.key, "message_id": message.id}
        log.error("message failed", extra=extra, exc_info=error)
        if not self._failures.exhausted(message.id):
            actor.inbox.insert(0, delivery)
            self._lose(actor)
            return
        this.publish.append((topics.dead_letters(delivery.topic), message))
        this.acks.append(delivery)
