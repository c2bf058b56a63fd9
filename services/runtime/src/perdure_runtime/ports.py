"""What the engines ask of a store, a broker and a clock. Each docstring says when durability begins.

One contract suite per port (tests/contracts) runs on every adapter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from msgspec import Struct

from perdure_core.task_engine.authority import Mark
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_schemas.blobs import Blob
from perdure_schemas.events import Recorded, RunStatus
from perdure_schemas.messages import CancelTimer, Message, RunChanged, ScheduleTimer, TaskChanged


class Clock(Protocol):
    def now(self) -> int:
        """Epoch milliseconds."""
        ...


# --- broker --------------------------------------------------------------------------------------

SubscriptionType = Literal["key-shared", "shared", "failover", "exclusive"]
RECEIVE_MAX = 256
"""Deliveries returned together, unless another limit is given: decided and published in one go, and held in memory."""


class Delivery(Struct, kw_only=True, eq=False):
    """One delivery of one message to one consumer. Identity is the delivery, not the message."""

    topic: str
    message: Message
    redeliveries: int
    """How often it was delivered before, as far as the broker knows; brokers forget."""
    deaths: int = 0
    """How often a consumer died after user code had begun on the message, as far as the broker knows. A consumer that
    handed it back did not die, nor did one that still lives when the broker is restarted: three deployments are no
    three deaths. On Pulsar workers tell each other, and the first death goes uncounted if it was quick; there, one that
    lives counts if its message goes to another when a broker is restarted."""
    token: object = None
    """The adapter's own handle."""


class Undeliverable(Struct, kw_only=True, eq=False):
    """Bytes that could not be decoded: to be moved to the dead-letter topic by whoever consumes."""

    topic: str
    data: bytes
    error: str
    redeliveries: int
    token: object = None


class Consumer(Protocol):
    """One subscription of one process.

    `receive` waits for at least one delivery and returns what is there, at most `limit`. A delivery stays this
    consumer's until it is acknowledged, negatively acknowledged, or the consumer closes or dies; then it is
    delivered again, to anybody.
    """

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery | Undeliverable]: ...

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        """Returns when the broker has it. May be lost all the same: then the messages come again."""
        ...

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        """Hand back: delivered again, to anybody, not before `delay_ms`. Never fails; never waits for durability."""
        ...

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        """User code is about to run on them: should this consumer vanish while they are its own, they die with it.

        Their `deaths` are then one more; of what was held and not begun they stay. What is handed back, or delivered
        again, has not begun. The code may run at once when `None` is returned, else when what is returned is done;
        it never fails: a death that cannot be written down goes uncounted.
        """
        ...

    def spare(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        """They have not begun, after all: what is going to run beside them may kill this consumer. As `begin`."""
        ...

    async def pause(self) -> None:
        """Receive nothing until `resume`: what was not received yet, and what comes, goes to others at once.

        What was received stays this consumer's, as before; `receive` waits. May be repeated.
        """
        ...

    async def resume(self) -> None:
        """Receive again. May be repeated.

        Raises:
            StorageUnavailable: the broker is away; it is paused as before.
        """
        ...

    async def close(self) -> None:
        """Hand back everything unacknowledged at once: no death of this consumer."""
        ...


class Publisher(Protocol):
    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        """Publish (topic, message) pairs of the messages' namespaces, in order per topic.

        Returns when every one is confirmed, hence durable. A missing `inbox.` topic is ignored.

        Raises:
            StorageUnavailable: at least one was not confirmed; each may or may not have been stored.
            MessageTooLarge: one is over the limit; none of the batch was published.
        """
        ...

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        """Publish bytes that are no message, to a dead-letter topic. Same guarantees."""
        ...


class Broker(Protocol):
    """Makes publishers and consumers."""

    def publisher(self) -> Publisher: ...

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> Consumer: ...


class DeadLetters(Protocol):
    """What could not be handled, for people to look at. Every broker has it."""

    async def dead_letters(self, namespace: str, limit: int) -> Sequence[Delivery | Undeliverable]:
        """Of all topics, newest first, at most `limit`; they stay. Of each topic only the newest are kept.

        A consumer of a dead-letter topic takes them away, one by one: to handle them again, or to forget them.
        """
        ...


# --- workflow state ------------------------------------------------------------------------------


class RunKey(Struct, frozen=True, gc=False):
    """What a head row stands for: a workflow id, whose runs follow each other."""

    namespace: str
    workflow_id: str


class Head(Struct, frozen=True, kw_only=True):
    """The constant-size row that commits compare and set."""

    version: int
    """Counts commits of the workflow id, over all its runs; 0: no row."""
    run_id: str
    """The current run; empty: unborn (only signals came yet)."""
    seq: int
    """The last seq of the current run."""
    runs: int
    """How many runs this workflow id has had, until the last of them is purged."""


NO_HEAD = Head(version=0, run_id="", seq=0, runs=0)


def vacant_head(runs: int) -> Head:
    """Of a workflow id whose current run is gone while earlier ones are kept: versions begin again, runs count on."""
    return Head(version=0, run_id="", seq=0, runs=runs)


class Commit(Struct, frozen=True, kw_only=True):
    """What one conditional write records: the head's new values and the events, whose causes become findable."""

    key: RunKey
    expected_version: int
    expected_run: str
    """The current run of the head it expects: after a purge versions begin again, run ids do not."""
    head: Head
    """With version = expected_version + 1."""
    events: Sequence[Recorded]
    """Of the run head.run_id, with consecutive seqs that end at head.seq."""
    commit_id: str
    """Unique per try."""
    unborn_ttl_ms: int | None = None
    """Set while the row is unborn: it may vanish after that time."""
    blind: bool = False
    """Decided without a load, since the workflow id was taken for new: recorded only if nothing is known of it, neither
    a head, nor a count of earlier runs, nor the tombstone of one."""


UNBOUNDED = 2**62
"""Bytes: as many as there are."""


class Store(Protocol):
    """Heads and histories."""

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        """The head and the current run's whole history; `NO_HEAD` and nothing if there is no row.

        A commit in doubt may be missing, and be there later: what may not be decided on less than all asks for
        `head` after the load. Every commit that was confirmed is there.

        A `vacant_head` and nothing where only earlier runs are kept: what they recorded is still theirs.
        """
        ...

    async def head(self, key: RunKey) -> Head:
        """The head by a serial read, which settles a commit in doubt; as `load` gives it."""
        ...

    async def commit(self, commit: Commit) -> bool:
        """True when recorded, durable from then on. False when the version was another: nothing was changed.

        Raises:
            UnknownOutcome: see the error.
            StorageUnavailable: nothing was changed.
        """
        ...

    async def history(  # noqa: PLR0917 - which run, from where, to where, how many: as a slice reads
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int = UNBOUNDED
    ) -> Sequence[Recorded]:
        """Events with after_seq < seq <= up_to, in order, at most `limit`.

        Fewer, but at least one, if those have more than about `bytes_max` as they are stored: who asks for a page does
        not want all of a large history read for it.
        """
        ...

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        """(run id, seq) of the first event that this message caused in any run not yet purged."""
        ...

    async def task_marks(self, key: RunKey, run_id: str, task_id: str) -> Sequence[Mark]:
        """By a serial read: what that run's events say of a task, and of all its tasks, by seq.

        Nothing if that is not the workflow id's current run. Written with the events (`authority.marks`), so that
        the read costs what happened to the task, however long the history.
        """
        ...

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        """Forget a run: write its tombstone, then delete its rows if the head's version is as expected.

        When it is the current run the head is vacant, or goes with the last of the runs.
        False: the version was another, nothing was deleted.
        """
        ...

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        """Whether that run was purged (and its tombstone has not expired)."""
        ...


# --- tasks ---------------------------------------------------------------------------------------


class TaskStore(Protocol):
    """One record per supervised task, as opaque bytes of the core's codec."""

    async def load(self, namespace: str, task_id: str) -> tuple[int, bytes | None]:
        """(version, record) by a serial read; (0, None): no row."""
        ...

    async def save(
        self, namespace: str, task_id: str, expected_version: int, record: bytes, *, ttl_ms: int | None = None
    ) -> bool:
        """Compare and set; as `Store.commit`. With a TTL the row vanishes after it."""
        ...


# --- timers --------------------------------------------------------------------------------------


class TimerStore(Protocol):
    """Timers by shard and due time. Only the owner of a shard writes to it."""

    async def put(self, namespace: str, shard: int, timers: Sequence[ScheduleTimer]) -> None:
        """Durable on return. The same timer_id again overwrites."""
        ...

    async def remove(self, namespace: str, shard: int, timer_ids: Sequence[str]) -> None:
        """They have fired."""
        ...

    async def cancel(self, namespace: str, shard: int, timers: Sequence[CancelTimer]) -> None:
        """They are not returned any more. One that is far ahead leaves nothing, if the time it is due is told."""
        ...

    async def due(self, namespace: str, shard: int, until: int, limit: int) -> Sequence[ScheduleTimer]:
        """Timers with due_at <= until, in due order."""
        ...

    async def next_due(self, namespace: str, shard: int) -> int | None:
        """Due time of the earliest timer of the shard."""
        ...


# --- read model ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list: all conditions hold. `None` or empty: no condition."""

    name: str | None = None
    """Of the workflow."""
    status: str | None = None
    """One of them, such as "running" or "failed"; ValueError if it is none."""
    tag: str | None = None
    """One that the run has."""
    workflow_id: str | None = None
    """Whose runs: they follow each other."""
    attribute: tuple[str, str] | None = None
    """Name and value of a search attribute."""
    waits_for: str | None = None
    """What it waits for, as lists show it."""
    started_from: int | None = None
    """Epoch milliseconds, included."""
    started_before: int | None = None
    """Epoch milliseconds, excluded."""

    def __post_init__(self) -> None:
        """
        Raises:
            TypeError: a condition is of another type.
            ValueError: no status is called so.
        """
        _check_filter(self)
        if self.status and self.status not in get_args(RunStatus):
            raise ValueError(f"status must be one of {', '.join(get_args(RunStatus))}, not {self.status!r:.80}")


def _check_filter(where: RunFilter) -> None:
    for name in ("name", "status", "tag", "workflow_id", "waits_for"):
        _check_condition(getattr(where, name), str, name, "a str")
    for name in ("started_from", "started_before"):
        _check_condition(getattr(where, name), int, name, "an int, epoch milliseconds")
    pair: object = where.attribute
    if pair is not None and not (isinstance(pair, tuple) and [type(part) for part in pair] == [str, str]):
        raise TypeError(f"attribute must be a pair of str, such as ('customer', 'c-1'), not {pair!r:.80}")


def _check_condition(value: object, kind: type, name: str, such_as: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be {such_as}, not {value!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Some of the runs that were asked for."""

    runs: Sequence[RunChanged] = field(default_factory=tuple)
    """Newest first; without their events."""
    cursor: str | None = None
    """Pass it for the next page; `None`: there is none."""


class BuildCounts(Struct, frozen=True, kw_only=True):
    """Runs of one workflow that are pinned to one build."""

    name: str
    build: str | None
    """`None`: those that any build may run."""
    counts: dict[str, int]
    """By status."""


class ReadModel(Protocol):
    """What lists and counts are read from. Written by the projector alone."""

    async def apply(self, changes: Sequence[tuple[str, RunChanged | TaskChanged]]) -> None:
        """(namespace, change) pairs. A change at or below the stored version of its run or task changes nothing."""
        ...

    async def forget(self, namespace: str, workflow_id: str, run_id: str) -> None:
        """Remove a purged run and its tasks. Changes of it that come late change nothing."""
        ...

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage: ...

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None:
        """The run, or with `None` the newest of the workflow id."""
        ...

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]: ...

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]:
        """Runs per name and status."""
        ...

    async def builds(self, namespace: str) -> Sequence[BuildCounts]:
        """Runs per name, build and status, as exact as `counts`; by name and build."""
        ...


TRANSIT_TTL_MS = 30 * 24 * 3_600_000
"""Of a blob in transit: longer than any message lives (14 days), and as long as the record of a closed task is kept.
Where messages wait for a program that sleeps, it does not expire meanwhile."""


class BlobAccess(Protocol):
    """Values too large for a message, as those who send and read them see the store."""

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        """Durable on return. Again with the same bytes: the same. In transit it vanishes after TRANSIT_TTL_MS."""
        ...

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        """Nothing unless all of it is there as it was put: half a write is none."""
        ...


class BlobStore(BlobAccess, Protocol):
    """Values too large for a message, in two areas: in transit, and runs' own."""

    async def remove(self, namespace: str, blob: Blob) -> None:
        """Whether it is there or not."""
        ...

    async def purge(self, namespace: str, workflow_id: str, run_id: str) -> None:
        """Remove all of a run's own, half writes too."""
        ...


class Routing(Struct, frozen=True, kw_only=True):
    """What new runs of a workflow get: a build, and defaults. Written by the operator or `perdure admin route`."""

    current: str | None = None
    ramping: str | None = None
    ramping_percent: int = 0
    """Share of new runs, by hash of the workflow id, that take `ramping`."""
    defaults: RunDefaults = RunDefaults()


class RoutingStore(Protocol):
    async def get(self, namespace: str, workflow: str) -> Routing: ...

    async def put(self, namespace: str, workflow: str, routing: Routing) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything a composition root hands to the engines."""

    clock: Clock
    broker: Broker
    store: Store
    tasks: TaskStore
    timers: TimerStore
    read_model: ReadModel
    blobs: BlobStore
    routing: RoutingStore
