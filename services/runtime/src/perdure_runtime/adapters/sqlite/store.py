"""Heads and histories as tables: one row of events per commit, numbered runs so that a run's rows lie together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import msgspec

from perdure_core.task_engine.authority import EVERY_COMMAND, Mark, marks
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import NO_HEAD, Commit, Head, RunKey
from perdure_schemas.codec import CodecError, decode_events, encode_events
from perdure_schemas.events import Recorded

_HEAD = """
    SELECT number, version, run_id, seq, runs, run, expires_at FROM heads WHERE namespace = ? AND workflow_id = ?
"""
_INSERT_HEAD = """
    INSERT INTO heads (version, run_id, seq, runs, run, expires_at, commit_id, number, namespace, workflow_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE_HEAD = """
    UPDATE heads SET version = ?, run_id = ?, seq = ?, runs = ?, run = ?, expires_at = ?, commit_id = ?
    WHERE number = ?
"""
_LAST_NUMBERS = "SELECT (SELECT coalesce(max(number), 0) FROM heads), (SELECT coalesce(max(run), 0) FROM runs)"
_MARKS = "SELECT data FROM marks WHERE run = ? AND command_id IN (?, ?) ORDER BY seq"
_PURGED_RUN = 0
"""A head whose current run was purged while older ones are kept points to no run."""
_ROWS_MAX = 10_000
"""Heads kept in memory, about 0.5 kB each: one is read once, then written many times."""


_encode_mark = msgspec.msgpack.Encoder().encode
_decode_mark = msgspec.msgpack.Decoder(Mark).decode


class _Row:
    """A head row with its keys."""

    __slots__ = ("expires_at", "head", "number", "run")

    def __init__(self, number: int, run: int, head: Head, expires_at: int | None) -> None:
        self.number = number
        self.run = run
        self.head = head
        self.expires_at = expires_at


class SqliteStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        ((heads, runs),) = database.read(_LAST_NUMBERS)
        self._heads: Iterator[int] = count(heads + 1)
        self._runs: Iterator[int] = count(runs + 1)
        self._rows: dict[RunKey, _Row] = {}
        """As the file has them, the open transaction included: nobody else writes it."""
        database.riders.append(self)

    def before_commit(self) -> None:
        """Every write is in the transaction already."""

    def committed(self) -> None:
        """The rows in memory stand."""

    def rolled_back(self) -> None:
        self._rows.clear()

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        row = self._row(key)
        rows = (
            ()
            if row is None
            else self._database.read("SELECT data FROM events WHERE run = ? ORDER BY first_seq", (row.run,))
        )
        await self._database.settled()
        return (NO_HEAD if row is None else row.head), [event for (data,) in rows for event in _decode(data)]

    async def version(self, key: RunKey) -> int:
        row = self._row(key)
        await self._database.settled()
        return 0 if row is None else row.head.version

    async def commit(self, commit: Commit) -> bool:
        row = self._row(commit.key)
        won = (0 if row is None else row.head.version) == commit.expected_version
        if won:
            self._write(commit, row)
        await self._database.settled()
        return won

    def _write(self, commit: Commit, row: _Row | None) -> None:
        database, head, events = self._database, commit.head, commit.events
        data = encode_events(events)
        ttl = commit.unborn_ttl_ms
        expires_at = None if ttl is None else database.clock.now() + ttl
        number = next(self._heads) if row is None else row.number
        if row is None or row.run == _PURGED_RUN:
            run = self._new_run(number, head.run_id)
        elif row.head.run_id == head.run_id:
            run = row.run
        elif row.head.version and not row.head.run_id:
            run = self._adopt_unborn(row, commit)
        else:
            run = self._new_run(number, head.run_id)
        values = (head.version, head.run_id, head.seq, head.runs, run, expires_at, commit.commit_id, number)
        if row is None:
            database.write(_INSERT_HEAD, (*values, commit.key.namespace, commit.key.workflow_id))
        else:
            database.write(_UPDATE_HEAD, values)
        if events:
            database.write("INSERT INTO events VALUES (?, ?, ?, ?)", (run, events[0].seq, events[-1].seq, data))
            first = {event.cause: event.seq for event in reversed(events)}
            causes = [(number, cause, run, seq) for cause, seq in first.items()]
            database.write_many("INSERT OR IGNORE INTO causes VALUES (?, ?, ?, ?)", causes)
            self._write_marks(run, events)
        self._keep(commit.key, _Row(number, run, head, expires_at))

    def _write_marks(self, run: int, events: Sequence[Recorded]) -> None:
        rows = [
            (run, command_id, mark.seq, mark.kind, _encode_mark(mark))
            for event in events
            for command_id, mark in marks(event)
        ]
        if rows:
            self._database.write_many("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", rows)

    def _keep(self, key: RunKey, row: _Row) -> None:
        rows = self._rows
        if len(rows) >= _ROWS_MAX and key not in rows:
            del rows[next(iter(rows))]
        rows[key] = row

    def _new_run(self, head: int, run_id: str) -> int:
        run = next(self._runs)
        self._database.write("INSERT INTO runs (run, head, run_id) VALUES (?, ?, ?)", (run, head, run_id))
        return run

    def _adopt_unborn(self, row: _Row, commit: Commit) -> int:
        """The run records anew what its unborn row held; the causes found there stay findable."""
        self._database.write("UPDATE runs SET run_id = ? WHERE run = ?", (commit.head.run_id, row.run))
        if commit.events[0].seq == 1:
            self._database.write("DELETE FROM events WHERE run = ?", (row.run,))
        return row.run

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int
    ) -> Sequence[Recorded]:
        row = self._row(key)
        run = None if row is None else self._run(row.number, run_id)
        # A commit has at least one event, so `limit` rows hold enough; they are decoded one by one.
        rows = (
            ()
            if run is None
            else self._database.read(
                "SELECT data FROM events WHERE run = ? AND first_seq >= coalesce("
                "(SELECT max(first_seq) FROM events WHERE run = ? AND first_seq <= ?), 0) "
                "AND first_seq <= ? ORDER BY first_seq LIMIT ?",
                (run, run, after_seq + 1, up_to, limit),
            )
        )
        await self._database.settled()
        found: list[Recorded] = []
        for (data,) in rows:
            found += [event for event in _decode(data) if after_seq < event.seq <= up_to]
            if len(found) >= limit:
                break
        return found[:limit]

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        row = self._row(key)
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
        row = self._row(key)
        current = row is not None and row.head.run_id == run_id
        rows = self._database.read(_MARKS, (row.run, task_id, EVERY_COMMAND)) if row is not None and current else ()
        await self._database.settled()
        return [_decode_mark(data) for (data,) in rows]

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        row = self._row(key)
        done = (0 if row is None else row.head.version) == expected_version
        if done:
            self._database.write(
                "INSERT OR REPLACE INTO tombstones (namespace, workflow_id, run_id, expires_at) VALUES (?, ?, ?, ?)",
                (key.namespace, key.workflow_id, run_id, self._database.clock.now() + tombstone_ttl_ms),
            )
            if row is not None:
                self._forget_run(row, run_id)
            self._rows.pop(key, None)
        await self._database.settled()
        return done

    def _forget_run(self, row: _Row, run_id: str) -> None:
        database, run = self._database, self._run(row.number, run_id)
        database.write("DELETE FROM events WHERE run = ?", (run,))
        database.write("DELETE FROM marks WHERE run = ?", (run,))
        database.write("DELETE FROM causes WHERE head = ? AND run = ?", (row.number, run))
        database.write("DELETE FROM runs WHERE run = ?", (run,))
        if not database.read("SELECT 1 FROM runs WHERE head = ? LIMIT 1", (row.number,)):
            database.forget_head(row.number)
        elif row.head.run_id == run_id:
            database.write(_UPDATE_HEAD, (0, "", 0, 0, _PURGED_RUN, None, "", row.number))

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        found = self._database.read(
            "SELECT 1 FROM tombstones WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND expires_at > ?",
            (key.namespace, key.workflow_id, run_id, self._database.clock.now()),
        )
        await self._database.settled()
        return bool(found)

    def _row(self, key: RunKey) -> _Row | None:
        row = self._rows.get(key)
        if row is None:
            found = self._database.read(_HEAD, (key.namespace, key.workflow_id))
            if not found:
                return None
            number, version, run_id, seq, runs, run, expires_at = found[0]
            row = _Row(number, run, Head(version=version, run_id=run_id, seq=seq, runs=runs), expires_at)
            self._keep(key, row)
        if row.expires_at is not None and row.expires_at <= self._database.clock.now():
            self._database.forget_head(row.number)
            self._rows.pop(key, None)
            return None
        return row

    def _run(self, head: int, run_id: str) -> int | None:
        found = self._database.read("SELECT run FROM runs WHERE head = ? AND run_id = ?", (head, run_id))
        return found[0][0] if found else None


def _decode(data: bytes) -> list[Recorded]:
    try:
        return decode_events(data)
    except CodecError as error:
        raise StorageUnavailable(f"a history row of the database is damaged: {error}") from error
