"""One run with a hand-made world around it: events as the engine would record them, in an order drawn from a seed.

The world's choices depend on the seed and on positions alone, so any process that issues the same commands gets the
same history.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perdure._replay.code import RunContext, Turn
from perdure._replay.instance import Instance
from perdure_schemas.common import Command, Completion, Failure, Outcome, Payload, RunOptions, WaitsFor
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
    Event,
    Recorded,
    SignalReceived,
    Started,
    TurnCommitted,
)

STARTED_AT = 1_700_000_000_000
FAILS_FROM = 1_000
"""A task whose first argument is at least this fails; others return their first argument."""

EVENTS_MAX = 2_000
NEAR_MS = 25_000
"""A timer due so soon may fire before anything else happens; a later one only when nothing else can."""


def json(value: Any) -> Payload:
    return Payload("json", msgspec.json.encode(value))


def started(*args: Any) -> Event:
    return Started(run_id="run-1", name="shape", args=json(args), options=RunOptions())


def recorded(seq: int, event: Event) -> Recorded:
    return Recorded(seq=seq, at=STARTED_AT + seq, cause="", event=event)


def instance_of(workflow: Any, *, run_id: str = "run-1", generation: int = 0) -> Instance:
    context = RunContext(
        namespace="default",
        workflow_id="workflow-1",
        run_id=run_id,
        name=workflow.name,
        started_at=STARTED_AT,
        generation=generation,
    )
    return Instance(workflow.code, context)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command as far as replays must agree on it."""

    position: str
    kind: str
    name: str
    digest: str
    id: str
    due_at: int | None
    value: bytes

    @classmethod
    def of(cls, command: Command) -> Line:
        value = command.args.data if command.args is not None else b""
        return cls(
            position=command.position,
            kind=command.kind,
            name=command.name,
            digest=command.digest,
            id=command.id,
            due_at=command.due_at,
            value=value,
        )


def ended(completion: Completion | None) -> bytes:
    return b"" if completion is None else msgspec.json.encode(_without_stack(completion))


def _without_stack(completion: Completion) -> Completion:
    failure = completion.failure
    while failure is not None and failure.cause is not None:
        failure = failure.cause
    plain = None if failure is None else Failure(name=failure.name, message=failure.message)
    return msgspec.structs.replace(completion, failure=plain)


@dataclass
class Transcript:
    """What came out of a run, event by event, however the events were cut into turns."""

    lines: list[Line] = field(default_factory=list)
    completion: bytes = b""

    def add(self, turn: Turn) -> None:
        assert turn.stoppage is None, turn.stoppage
        self.lines += map(Line.of, turn.commands)
        if turn.completion is not None:
            self.completion = ended(turn.completion)


Signals = Sequence[tuple[str, Any]]


class World:
    """Answers open commands, fires timers and sends signals, one event at a time."""

    def __init__(self, seed: int, signals: Signals = (), cancel_after: int | None = None) -> None:
        self._random = random.Random(seed)
        self._signals = list(signals)
        self._cancel_after = cancel_after
        self._events = 0
        self.at = STARTED_AT
        self.open: dict[str, Command] = {}
        self.closed: set[str] = set()

    def issued(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if command.kind == "cancel":
                self._cancel(command)
            elif command.kind in ("task", "child", "timer"):
                self.open[command.id] = command

    def _cancel(self, command: Command) -> None:
        self.open.pop(command.target, None)

    def next_event(self) -> Event | None:
        """The next thing that happens; None when nothing can any more."""
        self._events += 1
        if self._events == self._cancel_after:
            return CancelRequested(reason="enough", actor="test")
        tasks = sorted((c for c in self.open.values() if c.kind != "timer"), key=_by_position)
        timers = sorted((c for c in self.open.values() if c.kind == "timer"), key=lambda c: (c.due_at or 0, c.position))
        moves: list[Callable[[], Event]] = [lambda c=c: self._settle(c) for c in tasks]  # type: ignore[misc]
        if self._signals:
            moves += [self._signal] * 2
        if timers and (not moves or (timers[0].due_at or 0) <= self.at + NEAR_MS):
            moves.append(lambda: self._fire(timers[0]))
        if not moves:
            return None
        self.at += self._random.randrange(1, 50)
        return self._random.choice(moves)()

    def _settle(self, command: Command) -> Event:
        del self.open[command.id]
        assert command.args is not None
        (argument, *_) = msgspec.json.decode(command.args.data) or [None]
        if isinstance(argument, int) and argument >= FAILS_FROM:
            failure = Failure(name="ValueError", message=f"no {argument}")
            return settled(command.id, "failed", failure=failure)
        return settled(command.id, "completed", json(argument))

    def _fire(self, command: Command) -> Event:
        del self.open[command.id]
        self.at = max(self.at, command.due_at or 0)
        return settled(command.id, "fired")

    def _signal(self) -> Event:
        channel, value = self._signals.pop(0)
        return SignalReceived(channel=channel, payload=json(value), sender="test", number=len(self._signals))


def _by_position(command: Command) -> tuple[list[str], str]:
    return command.position.split("."), command.id


def settled(id: str, outcome: Outcome, result: Payload | None = None, failure: Failure | None = None) -> Event:
    return CommandSettled(command_id=id, outcome=outcome, result=result, failure=failure)


@dataclass
class Story:
    """A run from start to end, one event in each turn: the reference for all other ways to cut it."""

    events: list[Recorded]
    """Without turns; their seqs leave no gaps."""
    transcript: Transcript
    turns: list[Turn]
    """One for each event."""


def play(workflow: Any, seed: int = 0, *, args: Sequence[Any] = (), **world: Any) -> Story:
    """Run it live, with a turn for each event."""
    live = instance_of(workflow)
    around = World(seed, **world)
    events: list[Recorded] = []
    transcript, turns = Transcript(), []
    event: Event | None = started(*args)
    while event is not None:
        assert len(events) < EVENTS_MAX, "this run never ends"
        events.append(Recorded(seq=len(events) + 1, at=around.at, cause="", event=event))
        turn = live.turn(events[-1:], base=events[-1].seq, generation=0)
        transcript.add(turn)
        turns.append(turn)
        around.issued(turn.commands)
        if turn.completion is not None:
            break
        event = around.next_event()
    live.evict()
    return Story(events, transcript, turns)


@dataclass
class Cut:
    """The same events cut into turns, and the history that this makes."""

    history: list[Recorded]
    transcript: Transcript
    waits: list[WaitsFor]


def cut(workflow: Any, events: Sequence[Recorded], ends: Sequence[int], *, run_id: str = "run-1") -> Cut:
    """Live turns that end after `ends` events (indexes, rising); each is recorded right after what it had seen."""
    live = instance_of(workflow, run_id=run_id)
    history: list[Recorded] = []
    transcript, waits = Transcript(), []
    begin = 0
    for end in ends:
        for event in events[begin:end]:
            history.append(renumbered(event, len(history) + 1))
        turn = live.turn(history[-(end - begin) :], base=len(history), generation=0)
        transcript.add(turn)
        waits.append(turn.waits_for)
        history.append(committed(turn, len(history)))
        begin = end
        if turn.completion is not None:
            break
    live.evict()
    return Cut(history, transcript, waits)


def renumbered(record: Recorded, seq: int) -> Recorded:
    return msgspec.structs.replace(record, seq=seq)


def committed(turn: Turn, base: int) -> Recorded:
    """The record of a turn whose base is the event before it."""
    event = TurnCommitted(
        workflow_task_id=f"turn-{base}",
        base=base,
        nonce=f"nonce-{base}",
        generation=0,
        commands=turn.commands,
        waits_for=turn.waits_for,
        patches=turn.patches,
    )
    return Recorded(seq=base + 1, at=STARTED_AT, cause="", event=event)
