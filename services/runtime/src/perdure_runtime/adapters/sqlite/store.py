"""Heads and histories as tables: one row of events per commit, numbered runs so that a run's rows lie together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure_core.task_engine.authority import EVERY_COMMAND, Mark, marks
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.adapters.sqlite.expiry import NO_RUN, forget_run
from perdure_runtime.adapters.sqlite.heads import HeadRow, Heads
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import NO_HEAD, UNBOUNDED, Commit, Head, RunKey
from perdure_schemas.codec import CodecError, decode_events, encode_events
from perdure_schemas.events import Recorded

_MARKS = "SELECT data FROM marks WHERE run = ? AND command_id IN (?, ?) ORDER BY seq"
_ROW_EVENTS_MAX = 1_000
"""A commit of more is several rows: whoever reads a page of it decodes no more than it needs."""

_encode_mark = msgspec.msgpack.Encoder().encode
_decode_mark = msgspec.msgpack.Decoder(Mark).decode

_PART = (
    "FROM events WHERE run = ? AND first_seq >= coalesce("
    "(SELECT max(first_seq) FROM events WHERE run = ? AND first_seq <= ?), 0) "
    "AND first_seq <= ? ORDER BY first_seq LIMIT ?"
)
"""Of a history, from the row that holds an event on."""


class SqliteStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._heads = Heads(database)

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        row = self._heads.find(key)
        rows = (
            ()
            if row is None
            else self._database.read("SELECT data FROM events WHERE run = ? ORDER BY first_seq", (row.run,))
        )
        await self._database.settled()
        return (NO_HEAD if row is None else row.head), [event for (data,) in rows for event in _decode(data)]

    async def head(self, key: RunKey) -> Head:
        row = self._heads.find(key)
        await self._database.settled()
        return NO_HEAD if row is None else row.head

    async def commit(self, commit: Commit) -> bool:
        row = self._heads.find(commit.key)
        found = NO_HEAD if row is None else row.head
        won = (found.version, found.run_id) == (commit.expected_version, commit.expected_run)
        if won and commit.blind:
            won = row is None and not self._buried(commit.key)
        if won:
            self._write(commit, row)
        await self._database.settled()
        return won

    def _write(self, commit: Commit, row: HeadRow | None) -> None:
        database, heads, run_id = self._database, self._heads, commit.head.run_id
        parts, found_marks = _parts(commit.events), _marks_of(commit.events)  # may fail: before anything is written
        if row is not None and row.run != NO_RUN and row.head.run_id in (run_id, ""):
            run = row.run
            if row.head.run_id != run_id:
                self._adopt_unborn(run, commit)
            number = heads.write(commit, row, run)
        else:
            run = heads.next_run()
            number = heads.write(commit, row, run)
            database.write("INSERT INTO runs (run, head, run_id) VALUES (?, ?, ?)", (run, number, run_id))
        for part in parts:
            database.write("INSERT INTO events VALUES (?, ?, ?, ?)", (run, *part))
        causes = {event.cause: event.seq for event in reversed(commit.events)}
        rows = [(number, cause, run, seq) for cause, seq in causes.items()]
        database.write_many("INSERT OR IGNORE INTO causes VALUES (?, ?, ?, ?)", rows)
        if found_marks:
            of_run = [(run, *mark) for mark in found_marks]
            database.write_many("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", of_run)

    def _adopt_unborn(self, run: int, commit: Commit) -> None:
        """The run records anew what its unborn row held; the causes found there stay findable."""
        self._database.write("UPDATE runs SET run_id = ? WHERE run = ?", (commit.head.run_id, run))
        if commit.events[0].seq == 1:
            self._database.write("DELETE FROM events WHERE run = ?", (run,))

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int = UNBOUNDED
    ) -> Sequence[Recorded]:
        row = self._heads.find(key)
        run = None if row is None else self._heads.run(row.number, run_id)
        # A commit has at least one event, so `limit` rows hold enough; they are decoded one by one.
        of = (run, run, after_seq + 1, up_to, limit)
        if run is not None and bytes_max < UNBOUNDED:
            of = (run, run, after_seq + 1, self._last_within(of, bytes_max), limit)
        rows = () if run is None else self._database.read(f"SELECT data {_PART}", of)
        await self._database.settled()
        found: list[Recorded] = []
        for (data,) in rows:
            found += [event for event in _decode(data) if after_seq < event.seq <= up_to]
            if len(found) >= limit:
                break
        return found[:limit]

    def _last_within(self, of: tuple[object, ...], bytes_max: int) -> int:
        """The first seq of the last row that such a page has. No data is read for it."""
        sizes = self._database.read(f"SELECT first_seq, length(data) {_PART}", of)
        last = total = 0
        for first_seq, size in sizes:
            total += size
            if last and total > bytes_max:
                break
            last = first_seq
        return last

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        row = self._heads.find(key)
        found = (
            []
            if row is None
            else self._database.read(
                "SELECT r.run_id, c.seq FROM causes c JOIN runs r ON r.run = c.run WHERE c.head = ? AND c.cause = ?",
                (row.number, cause),
            )
        )
        await self._database.settled()
        return (found[0][0], found[0][1]) if found else None

    async def task_marks(self, key: RunKey, run_id: str, task_id: str) -> Sequence[Mark]:
        row = self._heads.find(key)
        current = row is not None and row.head.run_id == run_id
        rows = self._database.read(_MARKS, (row.run, task_id, EVERY_COMMAND)) if row is not None and current else ()
        await self._database.settled()
        return [_decode_mark(data) for (data,) in rows]

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        row = self._heads.find(key)
        done = (0 if row is None else row.head.version) == expected_version
        if done:
            self._database.write(
                "INSERT OR REPLACE INTO tombstones (namespace, workflow_id, run_id, expires_at) VALUES (?, ?, ?, ?)",
                (key.namespace, key.workflow_id, run_id, self._database.clock.now() + tombstone_ttl_ms),
            )
            if row is not None:
                self._forget_run(key, row, run_id)
        await self._database.settled()
        return done

    def _forget_run(self, key: RunKey, row: HeadRow, run_id: str) -> None:
        database, run = self._database, self._heads.run(row.number, run_id)
        if run is not None:
            forget_run(database, row.number, run)
        self._heads.forget_run(key, row, run_id)

    def _buried(self, key: RunKey) -> bool:
        """Whether any of its runs has a tombstone."""
        found = self._database.read(
            "SELECT 1 FROM tombstones WHERE namespace = ? AND workflow_id = ? AND expires_at > ? LIMIT 1",
            (key.namespace, key.workflow_id, self._database.clock.now()),
        )
        return bool(found)

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        found = self._database.read(
            "SELECT 1 FROM tombstones WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND expires_at > ?",
            (key.namespace, key.workflow_id, run_id, self._database.clock.now()),
        )
        await self._database.settled()
        return bool(found)


def _parts(events: Sequence[Recorded]) -> list[tuple[int, int, bytes]]:
    """(first seq, last seq, data) of each row."""
    size = _ROW_EVENTS_MAX
    parts = [events[first : first + size] for first in range(0, len(events), size)]
    return [(part[0].seq, part[-1].seq, encode_events(part)) for part in parts]


def _marks_of(events: Sequence[Recorded]) -> list[tuple[str, int, str, bytes]]:
    return [
        (command_id, mark.seq, mark.kind, _encode_mark(mark)) for event in events for command_id, mark in marks(event)
    ]


def _decode(data: bytes) -> list[Recorded]:
    try:
        return decode_events(data)
    except CodecError as error:
        raise StorageUnavailable(f"a history row of the database is damaged: {error}") from error
