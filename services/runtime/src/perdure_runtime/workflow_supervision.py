"""Tasks that the task engine is told of only if they are not over soon.

Kept in memory alone. Should this replica die meanwhile, or forget the run, nobody lists a task as waiting until a
worker begins it; it is done all the same, and its failure makes the record that its dispatch would have made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from perdure_core.workflow_engine.dispatch import (
    SUPERVISED_AFTER_MS,
    supervise,
    supervision_over,
    unsupervised,
)
from perdure_runtime.actor import Actor
from perdure_runtime.workflow_round import Round
from perdure_runtime.workflow_views import Views
from perdure_schemas.events import CommandSettled, Recorded


class Supervision:
    def __init__(self, views: Views, begin: Callable[[Actor], None]) -> None:
        """`begin` a round with an actor that waits for none."""
        self._views = views
        self._begin = begin
        self._waiting: deque[tuple[float, Actor, Sequence[str]]] = deque()
        """When, by the loop's clock, of which run, which tasks: the first to come stands first."""
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def committed(self, actor: Actor, events: Sequence[Recorded], this: Round) -> None:
        """What these events dispatched waits; what they settled need not be supervised any more."""
        if actor.supervised:
            this.publish.extend(supervision_over(actor.state, events, actor.supervised))
            actor.supervised.difference_update(_settled(events))
        tasks = unsupervised(actor.state, events)
        if not tasks:
            return
        loop = asyncio.get_running_loop()
        due_at = loop.time() + SUPERVISED_AFTER_MS / 1000
        self._waiting.append((due_at, actor, tasks))
        if self._timer is None:
            self._timer = loop.call_at(due_at, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiting:
            due_at, actor, tasks = self._waiting[0]
            if due_at > loop.time():
                self._timer = loop.call_at(due_at, self._look)
                return
            self._waiting.popleft()
            self._due(actor, tasks)

    def _due(self, actor: Actor, tasks: Sequence[str]) -> None:
        """An actor that was dropped, or that another took the place of, knows nothing any more."""
        if self._views.find(actor.key.workflow_id) is not actor:
            return
        actor.unsupervised += [task_id for task_id in tasks if actor.state.open_command(task_id) is not None]
        if actor.unsupervised and not actor.busy:
            self._begin(actor)

    def publish(self, actor: Actor, this: Round) -> None:
        """Of tasks that are due, what is not over."""
        tasks, actor.unsupervised = actor.unsupervised, []
        for task_id in tasks:
            known = actor.state.open_command(task_id)
            if known is not None:
                this.publish.append(supervise(actor.state, known, actor.state.at))
                actor.supervised.add(task_id)


def _settled(events: Sequence[Recorded]) -> list[str]:
    return [recorded.event.command_id for recorded in events if isinstance(recorded.event, CommandSettled)]
