"""Decides messages, one run at a time: what can be done at once is, what must wait for a commit or a view waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

from perdure_core.blobs import refers
from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.decide import decide
from perdure_core.workflow_engine.replies import reply
from perdure_runtime.actor import Actor
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.poison import Intake
from perdure_runtime.ports import Delivery, Store
from perdure_runtime.workflow_reads import reemit, reemit_termination
from perdure_runtime.workflow_round import (
    AHEAD_DELAY_MS,
    HOLD_MAX_MS,
    LOST_DELAY_MS,
    START_HOLD_MAX_MS,
    Round,
    later_ms,
)
from perdure_runtime.workflow_strays import tell_kept
from perdure_runtime.workflow_views import Views
from perdure_schemas import topics
from perdure_schemas.messages import WorkflowMessage, WorkflowTaskCompleted, WorkflowTaskFailed

log = logging.getLogger("perdure.workflow_engine")

WORKFLOW_BODIES = frozenset(get_args(WorkflowMessage))
QUICK_DISCARDS = frozenset({"already-started", "unknown-run", "not-applicable"})
"""Discards of messages that no run can have recorded, or none that is still open: the history need not be asked, unless
they refer to a blob, which the run that recorded them may not have got."""

Then = Literal["go on", "stop", "again"]
"""After a message: the next one, nothing more in this round, or this very message in the next round."""


class Decider:
    """Decides what is in the hands of a round. Protocol rules 7 and 8 are kept here."""

    def __init__(self, store: Store, views: Views, intake: Intake, flush: Callable[[Actor], None]) -> None:
        """`flush` is called when the buffer of an actor must be committed."""
        self._store = store
        self._views = views
        self._intake = intake
        self._flush = flush

    async def decide_all(self, actor: Actor, batch: Sequence[Delivery], this: Round) -> None:
        """In order, as far as this round can; the rest goes back to the inbox."""
        if actor.buffer and (actor.flush_due or actor.refresh_due):
            actor.put_back(batch)
            this.commits.append(actor)
            return
        actor.flush_due = False
        for index, delivery in enumerate(batch):
            try:
                then = await self._decide(actor, delivery, this)
            except (StorageUnavailable, UnknownOutcome):
                actor.put_back(batch[index:])
                raise
            except Exception as error:
                given_up = self._failed(delivery, error, this)
                actor.put_back(batch[index + 1 if given_up else index :])
                self._views.drop([actor], LOST_DELAY_MS)
                return
            if then != "go on":
                actor.put_back(batch[index if then == "again" else index + 1 :])
                return

    async def _decide(self, actor: Actor, delivery: Delivery, this: Round) -> Then:
        message = delivery.message
        body = message.body
        if type(body) not in WORKFLOW_BODIES:
            raise TypeError(f"{type(body).__name__} is no message of the workflow engine")
        body = cast(WorkflowMessage, body)
        context = await self._views.context(actor, body)
        decision = decide(actor.state, message, body, context)
        if isinstance(body, WorkflowTaskCompleted | WorkflowTaskFailed) and actor.turn_hash == body.base_hash:
            actor.turn_hash = ""
        return await self._sort(actor, delivery, decision, this)

    async def _sort(self, actor: Actor, delivery: Delivery, decision: d.Decision, this: Round) -> Then:
        """Carry out what can be at once, queue what must wait for a commit or a fresh view."""
        match decision:
            case d.Record():
                return await self._record(actor, delivery, decision, this)
            case d.Attached():
                actor.held.append(delivery)
                self._arm_flush(actor, HOLD_MAX_MS)
            case d.AlreadyRecorded(seq=seq) if seq > actor.loaded_seq:
                this.answer(delivery, reply(actor.state, delivery.message, "ok"))
            case d.Later() if actor.fresh or actor.buffer:  # what is on its way may be recorded elsewhere already
                age_ms = self._views.now() - delivery.message.at
                self._intake.hand_back([delivery], later_ms(age_ms))
            case _ if not actor.fresh or actor.buffer:
                actor.refresh_due = True
                return "again"
            case d.Discard(reason=reason) if reason in QUICK_DISCARDS and not refers(delivery.message.body):
                this.answer(delivery, decision.publish)
            case d.Serve(publish=publish):
                this.answer(delivery, publish)
            case d.Refuse():
                this.answer(delivery, ())
            case d.Ahead():
                self._intake.hand_back([delivery], AHEAD_DELAY_MS)
            case _:
                this.slow.append((actor, delivery, decision))
                return "stop"
        return "go on"

    async def _record(self, actor: Actor, delivery: Delivery, decision: d.Record, this: Round) -> Then:
        message = delivery.message
        runs_before = actor.head.runs if decision.begins_run else actor.state.ordinal - 1
        if runs_before:
            elsewhere = await self._store.find_cause(actor.key, message.id)
            if elsewhere is not None and elsewhere[0] in (actor.head.run_id, actor.state.run_id):
                actor.refresh_due = True  # another replica has recorded it, or begun the run in this buffer
                return "again"
            if elsewhere is not None:
                this.answer(delivery, await reemit(self._store, actor, elsewhere, message, blobs=this.blobs))
                return "go on"
        if decision.begins_run:
            if runs_before:
                this.publish += await reemit_termination(self._store, actor, message, blobs=this.blobs)
            actor.begin_run()
        now = self._views.now()
        actor.append(decision.events, message, decision.cause, now)
        if actor.state.started is None:
            tell_kept(message)
        for carried in decision.carried:
            actor.append([carried.event], message, carried.cause, now)
        if decision.again:
            this.commits.append(actor)
            return "again"
        actor.held.append(delivery)
        if decision.now:
            this.commits.append(actor)
            return "stop"
        self._arm_flush(actor, START_HOLD_MAX_MS if decision.begins_run else HOLD_MAX_MS)
        return "go on"

    def _arm_flush(self, actor: Actor, after_ms: int) -> None:
        if actor.flush_timer is None:
            loop = asyncio.get_running_loop()
            actor.flush_timer = loop.call_later(after_ms / 1000, self._flush, actor)

    def _failed(self, delivery: Delivery, error: Exception, this: Round) -> bool:
        """Count the failure; whether the message is given up, so that it leaves its key free."""
        message = delivery.message
        extra = {"action": "message_failed", "workflow_id": message.key, "message_id": message.id}
        log.error("message failed", extra=extra, exc_info=error)
        if not self._intake.exhausted(delivery):
            return False
        this.answer(delivery, [(topics.dead_letters(delivery.topic), message)])
        return True
