"""One workflow id in memory: its state, what is buffered on top of the commits, what is held for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure_core import blobs as whose
from perdure_core.workflow_engine.state import RunState, evolve, fold
from perdure_runtime.ports import NO_HEAD, Delivery, Head, RunKey
from perdure_schemas.blobs import Blob
from perdure_schemas.events import Event, Recorded, Started
from perdure_schemas.messages import Message, TimerFired


@dataclass(slots=True, eq=False)
class Actor:
    """Used by one round of the driver at a time."""

    key: RunKey
    head: Head
    state: RunState
    committed: int
    """The seq of `state` up to which it is committed."""
    loaded_seq: int = 0
    """Events after it were committed here, and what they publish is confirmed, or this actor would be gone."""
    blind: bool = False
    """Nothing was read: the workflow id is taken for new until its first commit, which finds out."""
    known: bool = False
    """It was taken for new, and is not."""
    fresh: bool = False
    """The view was compared after the messages under decision had come: discards may rest on it."""
    buffer: list[Recorded] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    """What the buffer refers to."""
    held: list[Delivery] = field(default_factory=list)
    turn_hash: str = ""
    """Base hash of the turn in flight; empty: none."""
    flush_timer: asyncio.TimerHandle | None = None
    flush_due: bool = False
    refresh_due: bool = False
    """A message waits to be decided on a fresh view."""
    busy: bool = False
    inbox: list[Delivery] = field(default_factory=list)
    waiters: list[str] = field(default_factory=list)
    """Inboxes that asked to be told of the run's end."""
    unsupervised: list[str] = field(default_factory=list)
    """Tasks that are not over, and of which the task engine is to be told now."""
    supervised: set[str] = field(default_factory=set)
    """Tasks of which the task engine was told late."""

    @property
    def loaded(self) -> bool:
        return self.head.version >= 0

    def stands_at(self, head: Head) -> bool:
        """Whether the view is of it. By the run, too: after a purge versions begin again."""
        return (self.head.version, self.head.run_id) == (head.version, head.run_id)

    def take(self) -> list[Delivery]:
        """What has come until now; what comes during a round is not covered by its view."""
        batch, self.inbox = self.inbox, []
        return batch

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Messages for the next round, before those that came since."""
        self.inbox[:0] = deliveries

    def append(self, events: Sequence[Event], message: Message, cause: str, now: int) -> None:
        """Number the events, apply them, keep them for the commit.

        `now` is the engine's clock: a sender whose clock is ahead must not take the run's time along, for good.
        """
        body = message.body
        due_at = body.due_at if isinstance(body, TimerFired) else 0
        for event in events:
            at = max(self.state.at, min(message.at, now), due_at)
            event = self._owned(event)
            entry = Recorded(seq=self.state.seq + 1, at=at, cause=cause or message.id, event=event)
            evolve(self.state, entry)
            self.buffer.append(entry)

    def rewind(self, history: Sequence[Recorded], events: Sequence[Event], message: Message, now: int) -> None:
        """As `append`, for events that change what came before them."""
        at = max(self.state.at, min(message.at, now))
        for seq, event in enumerate(events, len(history) + 1):
            self.buffer.append(Recorded(seq=seq, at=at, cause=message.id, event=self._owned(event)))
        self.state = fold(self.key.namespace, self.key.workflow_id, self.head.runs, [*history, *self.buffer])
        self.turn_hash = ""

    def _owned(self, event: Event) -> Event:
        """A history refers to its own run's blobs. An unborn row has no run: what is in transit outlives it."""
        run_id = event.run_id if isinstance(event, Started) else self.state.run_id
        if not run_id or not whose.refers(event):
            return event
        owned = whose.owned(event, self.key.workflow_id, run_id)
        self.blobs += whose.referred(owned)
        return owned

    def begin_run(self) -> None:
        """The events that follow are a new run's."""
        self.state = RunState(self.key.namespace, self.key.workflow_id, self.head.runs + 1)
        self.committed = self.loaded_seq = 0
        self.buffer, self.blobs = [], []
        self.turn_hash = ""

    def view(self, head: Head, history: Sequence[Recorded]) -> None:
        """What was just loaded takes the place of what was known."""
        ordinal = head.runs if head.run_id else head.runs + 1
        self.head = head
        self.state = fold(self.key.namespace, self.key.workflow_id, ordinal, history)
        self.committed = self.loaded_seq = self.state.seq
        self.buffer, self.blobs, self.turn_hash, self.blind = [], [], "", False

    def suppose_new(self) -> None:
        """Nothing is known of the workflow id, and nobody is asked: its first commit finds out."""
        self.view(NO_HEAD, ())
        self.blind = True

    def not_new(self) -> None:
        """Its first commit found out: what was decided is decided again, on what is there."""
        self.put_back([*self.release(), *self.take()])
        self.head, self.blind, self.known = UNLOADED, False, True
        self.flush_due = self.refresh_due = False
        self.stop_timer()

    def next_head(self) -> Head:
        state = self.state
        runs = state.ordinal if state.started is not None else self.head.runs
        return Head(version=self.head.version + 1, run_id=state.run_id, seq=state.seq, runs=runs)

    def commit_done(self, head: Head) -> list[Recorded]:
        """The buffer is recorded; returns it."""
        events, self.buffer, self.blobs = self.buffer, [], []
        self.head, self.committed, self.flush_due, self.blind = head, self.state.seq, False, False
        self.stop_timer()
        return events

    def stop_timer(self) -> None:
        if self.flush_timer is not None:
            self.flush_timer.cancel()
            self.flush_timer = None

    def release(self) -> list[Delivery]:
        """What was held for the commit."""
        held, self.held = self.held, []
        return held


UNLOADED = Head(version=-1, run_id="", seq=0, runs=0)


def new_actor(key: RunKey) -> Actor:
    """One that is not loaded yet."""
    return Actor(key, UNLOADED, RunState(key.namespace, key.workflow_id, 1), 0)
