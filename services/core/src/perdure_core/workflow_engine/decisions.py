"""What `decide` can answer: a closed union. The driver carries it out; each docstring states its duty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from perdure_schemas.common import MoveCheck, Query
from perdure_schemas.events import Event, Recorded
from perdure_schemas.messages import Message, ResumeRun

DiscardReason = Literal[
    "already-started",
    "closed",
    "decided",
    "diverged",
    "ended",
    "malformed",
    "not-applicable",
    "old-generation",
    "other-run",
    "refused",
    "rewound",
    "settled",
    "too-old",
    "unknown-command",
    "unknown-run",
]

Published: TypeAlias = tuple[str, Message]
"""(topic, message)."""


class Record(Struct, frozen=True, kw_only=True):
    """Append these events. Hold the message until the commit that contains them.

    With `now` commit at once; without, a turn may be speculated on them and committed together (at the
    latest 1 s after the message came).
    """

    events: Sequence[Event]
    now: bool = False
    begins_run: bool = False
    """The events are a new run's: they replace an unborn or ended one under the same workflow id."""
    again: bool = False
    """After the commit, decide the same message again."""
    cause: str = ""
    """The cause to record instead of the message's id."""
    carried: Sequence[Recorded] = ()
    """Events of an unborn row or an earlier run: recorded after `events`, each under its own cause (rule 6)."""


class AlreadyRecorded(Struct, frozen=True):
    """The message's events are committed at `seq`: publish the effects of that commit again, then acknowledge."""

    seq: int


class Attached(Struct, frozen=True):
    """The message's event, or another outcome of its command, is buffered: hold it, acknowledge with that commit."""


class Ahead(Struct, frozen=True):
    """A turn's result that rests on events this replica does not know: reload; still so: hand back with a delay."""


class Later(Struct, frozen=True):
    """Something must be recorded first that is on its way: hand back with a delay."""

    reason: str


class Discard(Struct, frozen=True):
    """The message cannot apply. Decide so only on a state loaded during this handling; publish, acknowledge."""

    reason: DiscardReason
    publish: Sequence[Published] = ()


class Refuse(Struct, frozen=True):
    """A terminal turn that had not seen a signal, update or cancel: drop it and run another turn."""


class Serve(Struct, frozen=True):
    """Nothing to record: publish, acknowledge. Decide so only on a committed state."""

    publish: Sequence[Published] = ()


class RunTurn(Struct, frozen=True):
    """Publish the run's workflow task again, as attempt `attempt`, then acknowledge.

    Attempt 0 is none of the back-off's: somebody looked whether the turn can be run by now.
    """

    attempt: int


class AskWorker(Struct, frozen=True):
    """Publish a workflow task that only answers this query, on the last committed turn, then acknowledge."""

    query: Query


class CheckMove(Struct, frozen=True):
    """Have a worker of the build replay the committed history, then acknowledge. Its answer decides on the move."""

    check: MoveCheck


class SendHistory(Struct, frozen=True):
    """Publish the page(s) of history asked for, from the store, then acknowledge."""


class AwaitEnd(Struct, frozen=True):
    """Remember to tell `reply_topic` when the run ends (memory is enough: the client asks again), acknowledge."""

    reply_topic: str


class FindEnd(Struct, frozen=True):
    """About another run than the current one: answer from its history, `replies.found_end`; then acknowledge.

    If the message was recorded in any run, its effects are published again instead.
    """

    run_id: str


class Rewind(Struct, frozen=True):
    """Load the whole history and ask `rewind.decide_rewind` for `request`."""

    request: ResumeRun


class Purge(Struct, frozen=True):
    """Forget the run: tombstone, delete conditionally, RunPurged; then acknowledge."""

    run_id: str


Decision: TypeAlias = (
    Record
    | AlreadyRecorded
    | Attached
    | Ahead
    | Later
    | Discard
    | Refuse
    | Serve
    | RunTurn
    | AskWorker
    | CheckMove
    | SendHistory
    | AwaitEnd
    | FindEnd
    | Rewind
    | Purge
)


class RunDefaults(Struct, frozen=True, kw_only=True):
    """Of a workflow, for runs whose start gives none of its own. In milliseconds; `None`: nothing is declared."""

    run_timeout_ms: int | None = None
    retention_ms: int | None = None


class Context(Struct, frozen=True, kw_only=True):
    """What a decision needs beside state and message, fetched by the driver."""

    now: int
    """Epoch milliseconds; only to judge whether a message is too old."""
    committed: int
    """The seq up to which the state is committed; the rest is this actor's buffer."""
    build: str | None = None
    """The build that the routing record gives a new run of this workflow id."""
    defaults: RunDefaults = RunDefaults()
    """Those that the routing record has for a new run of this workflow."""
    purged: bool = False
    """A tombstone stands for the run that the message names, where that matters: to what would begin or await a run."""
    earlier: bool = False
    """The run that a start names, not the current one, has a history: it was begun before."""
