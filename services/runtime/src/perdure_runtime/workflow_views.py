"""The runs in memory: what each replica believes of them, and how it learns better."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

from perdure_core.workflow_engine import decisions as d
from perdure_runtime.actor import UNLOADED, Actor, new_actor
from perdure_runtime.poison import Intake
from perdure_runtime.ports import Delivery, Ports, RunKey
from perdure_runtime.workflow_reads import route
from perdure_schemas.messages import (
    ControlRun,
    SendSignal,
    StartWorkflow,
    WorkflowMessage,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)

ACTORS_MAX = 20_000
"""Idle runs kept in memory, about 10 kB each."""
EVICTED_MAX = 10
"""At a time: several for each that comes, so that a crowd of busy ones is made up for."""

_FOR_A_RUN = (SendSignal, ControlRun, WorkflowTaskCompleted, WorkflowTaskFailed)
"""What waits for the run it names, unless that is purged."""

_NO_DEFAULTS = d.RunDefaults()


class Views:
    """Every actor of this replica. A view may be behind what another replica has committed since."""

    def __init__(self, ports: Ports, namespace: str, intake: Intake) -> None:
        self._ports = ports
        self._namespace = namespace
        self._intake = intake
        self._actors: OrderedDict[str, Actor] = OrderedDict()
        """Who was used longest ago stands first. No plain dict: to find its first, that passes all the removed."""

    def __len__(self) -> int:
        return len(self._actors)

    def find(self, workflow_id: str) -> Actor | None:
        return self._actors.get(workflow_id)

    def reserve(self, workflow_id: str) -> Actor:
        """The actor of a workflow id, busy from now on."""
        actor = self._actors.get(workflow_id)
        if actor is None:
            actor = self._actors[workflow_id] = new_actor(RunKey(self._namespace, workflow_id))
        actor.busy = True
        return actor

    # -- what is known -----------------------------------------------------------------------------

    async def freshen(self, batches: Sequence[tuple[Actor, Sequence[Delivery]]]) -> None:
        """Load what is not loaded, and compare what is to be fresh, once nothing is buffered on it.

        A start that comes for the first time has a new workflow id nearly always, if its sender does not say what to do
        should the id be in use: nothing is read for it.
        """
        due = []
        for actor, batch in batches:
            actor.fresh = actor.refresh_due and not actor.buffer
            if not actor.loaded and not actor.known and _begins(batch):
                actor.suppose_new()
            elif actor.fresh or not actor.loaded:
                due.append(actor)
        if len(due) == 1:
            await self._freshen(due[0])
        elif due:
            await asyncio.gather(*map(self._freshen, due))

    async def _freshen(self, actor: Actor) -> None:
        """A load alone is not fresh: what it misses, the commit finds out for less than a serial read costs."""
        store = self._ports.store
        if not actor.loaded or actor.blind:
            actor.view(*await store.load(actor.key))
        if actor.fresh and not actor.stands_at(await store.head(actor.key)):
            actor.view(*await store.load(actor.key))
        actor.refresh_due = False

    def now(self) -> int:
        """The engine's clock."""
        return self._ports.clock.now()

    async def context(self, actor: Actor, body: WorkflowMessage) -> d.Context:
        """What a decision needs beside state and message."""
        state, ports = actor.state, self._ports
        build, defaults, purged, earlier = None, _NO_DEFAULTS, False, False
        if isinstance(body, StartWorkflow) and (state.started is None or state.ended is not None):
            routing = await ports.routing.get(self._namespace, body.name)
            build, defaults = route(routing, body.workflow_id), routing.defaults
            purged, earlier = await self._past(actor, body)
        elif isinstance(body, StartWorkflow) and body.parent is not None:
            purged, earlier = await self._past(actor, body)  # or a child that is over would be told as refused
        elif isinstance(body, _FOR_A_RUN) and state.started is None and body.run_id:
            purged = await ports.store.tombstone(actor.key, body.run_id)
        now = ports.clock.now()
        return d.Context(
            now=now, committed=actor.committed, build=build, defaults=defaults, purged=purged, earlier=earlier
        )

    async def _past(self, actor: Actor, body: StartWorkflow) -> tuple[bool, bool]:
        """Whether the run that is not the current one was purged, and whether it was begun before."""
        if actor.blind or actor.state.is_meant(body.run_id):
            return False, False
        store = self._ports.store
        purged = await store.tombstone(actor.key, body.run_id)
        return purged, bool(actor.head.runs and await store.history(actor.key, body.run_id, 0, 1, 1))

    # -- what is forgotten -------------------------------------------------------------------------

    def drop(self, actors: Iterable[Actor], delay_ms: int) -> None:
        """Lost, or in doubt: forget the view, hand every message back."""
        for actor in actors:
            back: list[Delivery] = [*actor.release(), *actor.take()]
            actor.busy, actor.head = False, UNLOADED
            actor.flush_due = actor.refresh_due = False
            self.forget(actor)
            self._intake.hand_back(back, delay_ms)

    def rest(self, actor: Actor) -> None:
        """Nothing is left to do for now. A run that has ended is not kept; its history is."""
        actor.busy = False
        if not actor.loaded or (actor.state.ended is not None and not actor.held):
            self.forget(actor)
            return
        self._actors.move_to_end(actor.key.workflow_id)
        if len(self._actors) > ACTORS_MAX:
            self._evict()

    def _evict(self) -> None:
        """Forget some of the idle actors that were used longest ago. Clients that await the end of a run ask again."""
        for actor in list(islice(self._actors.values(), EVICTED_MAX)):
            if actor.busy or actor.held:
                self._actors.move_to_end(actor.key.workflow_id)  # in use: its turn comes again, behind the others
            else:
                self.forget(actor)

    def forget(self, actor: Actor) -> None:
        actor.stop_timer()
        if self._actors.get(actor.key.workflow_id) is actor:
            del self._actors[actor.key.workflow_id]

    def clear(self) -> None:
        for actor in list(self._actors.values()):
            self.forget(actor)


def _begins(batch: Sequence[Delivery]) -> bool:
    """Whether the first of them starts a run that does not follow another, and was not delivered before.

    One that gives another policy than the default is sent again and again under ids in use: taken for new, each would
    wait for a turn of a run that never begins, and run its code.
    """
    if not batch or batch[0].redeliveries:
        return False
    body = batch[0].message.body
    if not isinstance(body, StartWorkflow) or body.continued_from is not None:
        return False
    return (body.conflict_policy, body.reuse_policy) == ("fail", "always")
