"""Decisions of the workflow engine that read more than a view, on one that is fresh and committed."""

from __future__ import annotations

from typing import assert_never

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.requests import replay_check, workflow_task
from perdure_core.workflow_engine.rewind import decide_rewind, resume_parent
from perdure_runtime.actor import UNLOADED, Actor
from perdure_runtime.blobs import Custody
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Delivery, Ports, Publisher
from perdure_runtime.workflow_commits import Commits
from perdure_runtime.workflow_reads import (
    earlier_end,
    history_page,
    reemit,
    reemit_resume,
    reemit_termination,
    run_purged,
)
from perdure_runtime.workflow_round import TOMBSTONE_TTL_MS, Round
from perdure_runtime.workflow_strays import tell_lost
from perdure_schemas.blobs import Blob
from perdure_schemas.messages import ResumeRun


class SlowDecisions:
    """Each is carried out and its message acknowledged with the round."""

    def __init__(self, ports: Ports, commits: Commits, publisher: Publisher, custody: Custody) -> None:
        self._store = ports.store
        self._blobs = ports.blobs
        self._custody = custody
        self._clock = ports.clock
        self._commits = commits
        self._publisher = publisher

    async def carry_out(  # noqa: C901, PLR0912 - one branch per member of a closed union
        self, actor: Actor, delivery: Delivery, decision: d.Decision, this: Round
    ) -> None:
        message, state, store = delivery.message, actor.state, self._store
        match decision:
            case d.AlreadyRecorded(seq=seq):
                this.publish += await reemit(store, actor, (state.run_id, seq), message, blobs=this.blobs)
                this.publish += await reemit_termination(store, actor, message, blobs=this.blobs)
                this.publish += await reemit_resume(store, actor, seq, message)
                actor.turn_hash = ""
            case d.Discard():
                elsewhere = await store.find_cause(actor.key, message.id)
                recorded = elsewhere is not None and await reemit(store, actor, elsewhere, message, blobs=this.blobs)
                this.publish.extend(recorded or decision.publish)
                if not recorded and decision.reason in {"closed", "other-run"}:
                    tell_lost(message)
            case d.RunTurn(attempt=attempt):
                this.publish.append(workflow_task(state, actor.committed, attempt=attempt))
            case d.AskWorker(query=query):
                this.publish.append(workflow_task(state, actor.committed, queries=[query]))
            case d.CheckMove(check=check):
                this.publish.append(replay_check(state, check))
            case d.SendHistory():
                this.publish.append(await history_page(store, actor, message))
            case d.AwaitEnd(reply_topic=topic):
                if topic not in actor.waiters:
                    actor.waiters.append(topic)
            case d.FindEnd(run_id=run_id):
                this.publish += await earlier_end(store, actor, run_id, message, blobs=this.blobs)
            case d.Rewind(request=request):
                await self._rewind(actor, delivery, request, this)
                return
            case d.Purge(run_id=run_id):
                await self._purge(actor, delivery, run_id, this)
            case d.Record() | d.Attached() | d.Ahead() | d.Later() | d.Refuse() | d.Serve():
                raise AssertionError(f"{decision} is carried out at once")
            case _:
                assert_never(decision)
        this.acks.append(delivery)

    async def _rewind(self, actor: Actor, delivery: Delivery, body: ResumeRun, this: Round) -> None:
        message = delivery.message
        head, history = await self._store.load(actor.key)
        if head != actor.head:
            actor.view(head, history)
            actor.put_back([delivery])
            return
        ended = actor.state.ended
        decision = decide_rewind(actor.state, message, body, history)
        if not isinstance(decision, d.Record):
            assert isinstance(decision, d.Discard)
            this.publish.extend(decision.publish)
            this.acks.append(delivery)
            return
        actor.rewind(history, decision.events, message, self._clock.now())
        actor.held.append(delivery)
        if await self._commits.one(actor, this):
            this.publish += resume_parent(actor.state, message, body, ended)

    async def _purge(self, actor: Actor, delivery: Delivery, run_id: str, this: Round) -> None:
        """What closed the run is confirmed before: after it, nobody knows any more what was open."""
        recorded: list[Blob] = []
        closing = await reemit_termination(self._store, actor, delivery.message, blobs=recorded)
        await self._custody.keep(recorded)
        if closing:
            await self._publisher.publish(await self._custody.lend(closing))
        name = actor.state.started.name if actor.state.started is not None else ""
        if not await self._store.purge(actor.key, run_id, actor.head.version, TOMBSTONE_TTL_MS):
            raise StorageUnavailable("the run changed while it was being purged")
        await self._blobs.purge(actor.key.namespace, actor.key.workflow_id, run_id)
        this.publish.append(run_purged(actor, run_id, name, self._clock.now()))
        actor.head = UNLOADED
