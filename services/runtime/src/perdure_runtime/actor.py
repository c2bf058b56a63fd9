"""One workflow id in memory: its state, what is buffered on top of the commits, what is held for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure_core.workflow_engine.state import RunState, evolve, fold
from perdure_runtime.ports import Delivery, Head, RunKey
from perdure_schemas.events import Event, Recorded
from perdure_schemas.messages import Message, TimerFired


@dataclass(slots=True, eq=False)
class Actor:
    """Used by one round of the driver at a time."""

    key: RunKey
    head: Head
    state: RunState
    committed: int
    """The seq of `state` up to which it is committed."""
    fresh: bool = True
    """Loaded or committed during this round: discards may rest on it."""
    buffer: list[Recorded] = field(default_factory=list)
    held: list[Delivery] = field(default_factory=list)
    turn_hash: str = ""
    """Base hash of the turn in flight; empty: none."""
    flush_timer: asyncio.TimerHandle | None = None
    flush_due: bool = False
    busy: bool = False
    inbox: list[Delivery] = field(default_factory=list)
    waiters: list[str] = field(default_factory=list)
    """Inboxes that asked to be told of the run's end."""
    idle_since: float = 0.0

    def append(self, events: Sequence[Event], message: Message, cause: str) -> list[Recorded]:
        """Number the events, apply them, keep them for the commit."""
        body = message.body
        due_at = body.due_at if isinstance(body, TimerFired) else 0
        recorded = []
        for event in events:
            at = max(self.state.at, message.at, due_at)
            entry = Recorded(seq=self.state.seq + 1, at=at, cause=cause or message.id, event=event)
            evolve(self.state, entry)
            recorded.append(entry)
        self.buffer.extend(recorded)
        return recorded

    def rewind(self, history: Sequence[Recorded], events: Sequence[Event], message: Message) -> None:
        """As `append`, for events that change what came before them."""
        at = max(self.state.at, message.at)
        for seq, event in enumerate(events, len(history) + 1):
            self.buffer.append(Recorded(seq=seq, at=at, cause=message.id, event=event))
        self.state = fold(self.key.namespace, self.key.workflow_id, self.head.runs, [*history, *self.buffer])
        self.turn_hash = ""

    def begin_run(self) -> None:
        """The events that follow are a new run's."""
        self.state = RunState(self.key.namespace, self.key.workflow_id, self.head.runs + 1)
        self.committed = 0
        self.buffer = []
        self.turn_hash = ""

    def next_head(self) -> Head:
        state = self.state
        runs = state.ordinal if state.started is not None else self.head.runs
        return Head(version=self.head.version + 1, run_id=state.run_id, seq=state.seq, runs=runs)

    def commit_done(self, head: Head) -> list[Recorded]:
        """The buffer is recorded; returns it."""
        events, self.buffer = self.buffer, []
        self.head, self.committed, self.fresh, self.flush_due = head, self.state.seq, True, False
        if self.flush_timer is not None:
            self.flush_timer.cancel()
            self.flush_timer = None
        return events

    def release(self) -> list[Delivery]:
        """What was held for the commit."""
        held, self.held = self.held, []
        return held


def actor_of(key: RunKey, head: Head, history: Sequence[Recorded]) -> Actor:
    """An actor on a state just loaded."""
    ordinal = head.runs if head.run_id else head.runs + 1
    state = fold(key.namespace, key.workflow_id, ordinal, history)
    return Actor(key, head, state, state.seq)
