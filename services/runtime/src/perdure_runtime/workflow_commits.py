"""Commits of the workflow engine: one conditional write per run, then what it publishes."""

from __future__ import annotations

import asyncio
import logging

from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import reply, run_result
from perdure_core.workflow_engine.requests import carries, run_changed, workflow_task
from perdure_runtime.actor import Actor
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.poison import OUTAGE_DELAY_MS
from perdure_runtime.ports import Commit, Store
from perdure_runtime.workflow_round import LOST_DELAY_MS, UNBORN_TTL_MS, Round
from perdure_runtime.workflow_supervision import Supervision
from perdure_runtime.workflow_views import Views
from perdure_schemas.events import Recorded

log = logging.getLogger("perdure.workflow_engine")


class Commits:
    """The loser of a conditional write publishes nothing, forgets its view, and hands its messages back at once."""

    def __init__(self, store: Store, views: Views, supervision: Supervision, owner: str) -> None:
        self._store = store
        self._views = views
        self._supervision = supervision
        self._owner = owner
        self._tries = 0

    async def all_of(self, this: Round) -> None:
        """Commit what the round has decided, side by side."""
        if len(this.commits) == 1:
            await self.one(this.commits[0], this)
        elif this.commits:
            await asyncio.gather(*(self.one(actor, this) for actor in this.commits))

    async def one(self, actor: Actor, this: Round) -> bool:
        """Whether it was recorded."""
        head = actor.next_head()
        self._tries += 1
        commit = Commit(
            key=actor.key,
            expected_version=actor.head.version,
            expected_run=actor.head.run_id,
            head=head,
            events=actor.buffer,
            commit_id=f"{self._owner}-{self._tries}",
            unborn_ttl_ms=UNBORN_TTL_MS if actor.state.started is None else None,
            blind=actor.blind,
        )
        delay_ms = LOST_DELAY_MS
        extra = {"workflow_id": actor.key.workflow_id}
        try:
            recorded = actor.blobs
            if await self._store.commit(commit):
                this.blobs += recorded
                self._publish(actor, actor.commit_done(head), this)
                return True
            if commit.blind:
                actor.not_new()
                return False
        except UnknownOutcome as error:
            log.warning("commit outcome unknown", extra={"action": "commit_unknown", "error": str(error), **extra})
        except StorageUnavailable as error:
            log.warning("storage unavailable", extra={"action": "commit_outage", "error": str(error), **extra})
            delay_ms = OUTAGE_DELAY_MS
        self._views.drop([actor], delay_ms)
        return False

    def _publish(self, actor: Actor, events: list[Recorded], this: Round) -> None:
        """What the commit causes; its messages are acknowledged when all of it is confirmed."""
        state = actor.state
        held = actor.release()
        if state.started is not None:
            this.publish.extend(effects(state, events))
            this.publish.append(run_changed(state, actor.head.version, events))
            self._supervision.committed(actor, events, this)
        for delivery in held:
            this.publish.extend(reply(state, delivery.message, "ok"))
        if state.ended is not None:
            told = state.started.reply_topic if state.started is not None else ""
            this.publish.extend(run_result(state, state.ended, one) for one in actor.waiters if one != told)
            actor.waiters = []
        if actor.turn_hash and state.needs_turn():
            actor.turn_hash = ""  # protocol rule 15: an early flush publishes the turn again, on the committed base
        this.acks.extend(held)


def want_turn(actor: Actor, this: Round) -> None:
    """Ask a worker for a decision turn, if one is owed and none is under way (protocol rule 5)."""
    state = actor.state
    if actor.turn_hash or not actor.loaded or not state.needs_turn():
        return
    if actor.committed < state.seq and not carries(state):
        actor.flush_due = True  # the worker is to read it from the history: the next round commits it
        return
    actor.turn_hash = state.hashes[state.seq]
    this.publish.append(workflow_task(state, actor.committed))
