"""Heads and histories: a commit is one conditional UPDATE of the head (static) and one row of events beside it.

A workflow id's newest commits lie in one partition with its head; the older ones move to archives of a few megabytes
each, so that no partition grows without bound. What one commit has above a megabyte lies in chunks that are written
first. No column of a head or a history has a time to live, but those of a row that is not born yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from perdure_core.task_engine.authority import EVERY_COMMAND, Mark, marks
from perdure_runtime.adapters.cassandra.archives import Archives, decode_marks
from perdure_runtime.adapters.cassandra.chunks import CHUNK_BYTES, Chunks
from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.adapters.cassandra.heads import DELETE_UNBORN, EXPIRY_SLACK_S, HEAD_COLUMNS, Heads, HeadState
from perdure_runtime.adapters.cassandra.tails import Tails
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import NO_HEAD, UNBOUNDED, Clock, Commit, Head, RunKey, vacant_head
from perdure_schemas.codec import CodecError, decode_events, encode_events
from perdure_schemas.events import Recorded

log = logging.getLogger("perdure.cassandra")

_PAGE = 5_000
"""Rows: more than a tail has, so that a load is one page and sees the partition at one moment."""
_FEW = 8
"""Rows, doubled from read to read: a megabyte of large ones, and a thousand small ones in seven reads."""

_TAIL = (
    f"SELECT {HEAD_COLUMNS}, run_id, first_seq, last_seq, data, chunks FROM commits "
    "WHERE namespace = ? AND workflow_id = ?"
)
_COMMIT = (
    "UPDATE commits SET version = ?, head_run = ?, head_seq = ?, runs = ?, commit_id = ?, expires_at = ?, "
    "last_seq = ?, causes = ?, marks = marks + ?, data = ?, chunks = ? "
    "WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND first_seq = ? IF version = ? AND head_run = ?"
)
_COMMIT_BLIND = f"{_COMMIT} AND runs = null AND buried = null"
_COMMIT_UNBORN = _COMMIT.replace("UPDATE commits", "UPDATE commits USING TTL ?").replace("runs = ?, ", "")
"""How many runs there were stays when the row goes."""
_EVENTS = (
    "SELECT first_seq, last_seq, data, chunks FROM commits "
    "WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND first_seq >= ? AND first_seq <= ?"
)
_ROW_OF = (
    "SELECT first_seq FROM commits WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND first_seq <= ? "
    "ORDER BY run_id DESC, first_seq DESC LIMIT 1"
)
_CAUSES = "SELECT run_id, causes FROM commits WHERE namespace = ? AND workflow_id = ?"
_MARKS = (
    "SELECT head_run, archives, purging, marks[?], marks[?] FROM commits "
    "WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
)
_ENCODE_MARKS = msgspec.msgpack.Encoder().encode


def _marks_of(events: Sequence[Recorded]) -> dict[str, bytes]:
    """What the events say of each command, by command id."""
    found: dict[str, list[Mark]] = {}
    for recorded in events:
        for command_id, mark in marks(recorded):
            found.setdefault(command_id, []).append(mark)
    return {command_id: _ENCODE_MARKS(each) for command_id, each in found.items()}


class CassandraStore:
    def __init__(self, connection: Connection, clock: Clock, tombstone_slack_s: int = EXPIRY_SLACK_S) -> None:
        self._connection = connection
        self._clock = clock
        self._chunks = Chunks(connection)
        self._archives = Archives(connection, self._chunks)
        self._heads = Heads(connection, clock, (self._chunks, self._archives), tombstone_slack_s)
        self._tails = Tails(self._archives)

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        while True:
            rows = await self._connection.rows(_TAIL, key.namespace, key.workflow_id, page=_PAGE)
            if not rows:
                return NO_HEAD, []
            state = HeadState.of(rows[0])
            if state.purging is not None:
                await self._heads.finish_purge(key, state)
                continue
            if state.archives == HeadState.of(rows[-1]).archives:
                break
        head = state.head
        if head.version == 0 or self._heads.expired(state):
            return vacant_head(head.runs), []
        self._tails.measured(key, len(rows), sum(len(row[10] or b"") for row in rows))
        tail = [row[7:] for row in rows if row[7] == head.run_id]
        archived = await self._archives.read(key, head.run_id, state.archives or 0)
        return head, await self._events(key, head.run_id, [*archived, *(row[1:] for row in tail)], (0, head.seq))

    async def head(self, key: RunKey) -> Head:
        state = await self._heads.state(key)
        return vacant_head(state.head.runs) if self._heads.expired(state) else state.head

    async def commit(self, commit: Commit) -> bool:
        data = encode_events(commit.events)
        causes = {event.cause: event.seq for event in reversed(commit.events)}
        unborn: dict[str, int] = {}
        if commit.expected_version and commit.events[0].seq == 1:
            unborn = await self._unborn_causes(commit.key)
            causes = {**unborn, **causes}
        chunks = ""
        if len(data) > CHUNK_BYTES:
            chunks = commit.commit_id
            await self._chunks.write(commit.key, commit.head.run_id, chunks, data)
        won = await self._conditional(commit, data, causes, chunks)
        first = commit.expected_version == 0 and not commit.blind
        if not won and first and await self._heads.forget_expired(commit.key):
            won = await self._conditional(commit, data, causes, chunks)
        if not won:
            if chunks:
                await self._chunks.delete(commit.key, commit.head.run_id, chunks)
            return False
        if unborn and commit.head.run_id:
            await self._forget_unborn(commit.key)
        self._tails.grown(commit.key, 0 if chunks else len(data))
        return True

    async def _forget_unborn(self, key: RunKey) -> None:
        """The commit is stored, whatever becomes of this: what is left says the same as it, and has a time to live."""
        try:
            await self._connection.write(DELETE_UNBORN, key.namespace, key.workflow_id)
        except StorageUnavailable as error:
            extra = {"action": "unborn_left", "workflow_id": key.workflow_id, "error": str(error)}
            log.warning("a row of an unborn run is left to its time to live", extra=extra)

    async def _conditional(self, commit: Commit, data: bytes, causes: dict[str, int], chunks: str) -> bool:
        head, ttl_ms = commit.head, commit.unborn_ttl_ms
        unborn = ttl_ms is not None
        expires_at = None if ttl_ms is None else self._clock.now() + ttl_ms
        return await self._connection.decide(
            _COMMIT_UNBORN if unborn else _COMMIT_BLIND if commit.blind else _COMMIT,
            *(() if ttl_ms is None else (ttl_ms // 1000 + EXPIRY_SLACK_S,)),
            head.version, head.run_id, head.seq, *(() if unborn else (head.runs,)), commit.commit_id, expires_at,
            commit.events[-1].seq, causes, _marks_of(commit.events), None if chunks else data, chunks,
            commit.key.namespace, commit.key.workflow_id, head.run_id, commit.events[0].seq,
            commit.expected_version or None, commit.expected_run if commit.expected_version else None,
        )  # fmt: skip

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int = UNBOUNDED
    ) -> Sequence[Recorded]:
        of, last = (key.namespace, key.workflow_id, run_id), min(up_to, after_seq + limit)
        begin = await self._connection.rows(_ROW_OF, *of, after_seq + 1) if after_seq else []
        first = begin[0][0] if begin else 0
        tail = await self._tail(of, (first, last), bytes_max)
        state = await self._heads.state(key)
        archived: Sequence[Row] = ()
        if state.archives and (not tail or tail[0][0] > after_seq + 1):
            archived = await self._archives.read(key, run_id, state.archives, (after_seq, last))
        return await self._events(key, run_id, [*archived, *tail], (after_seq, last))

    async def _tail(self, of: tuple[str, str, str], bounds: tuple[int, int], bytes_max: int) -> list[Row]:
        """Rows of a history in [first, last], a few at a time if they may be many and large."""
        (first, last), found, size, many = bounds, list[Row](), 0, _FEW
        if bytes_max >= UNBOUNDED:
            return await self._connection.rows(_EVENTS, *of, first, last, page=_PAGE)
        while size <= bytes_max:
            rows = await self._connection.rows(f"{_EVENTS} LIMIT ?", *of, first, last, many)
            found += rows
            size += sum(len(row[2] or b"") + (CHUNK_BYTES if row[3] else 0) for row in rows)
            if len(rows) < many:
                break
            first, many = rows[-1][0] + 1, 2 * many
        return found

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        state = await self._heads.state(key)
        hidden = {state.purging, "" if self._heads.expired(state) else None}
        rows = await self._connection.rows(_CAUSES, key.namespace, key.workflow_id, page=_PAGE)
        for run_id, causes in rows:
            if causes and cause in causes and run_id not in hidden:
                return run_id, causes[cause]
        return await self._archives.find_cause(key, cause) if state.archives else None

    async def task_marks(self, key: RunKey, run_id: str, task_id: str) -> Sequence[Mark]:
        ids = (task_id, EVERY_COMMAND)
        rows = await self._connection.rows(
            _MARKS, *ids, key.namespace, key.workflow_id, run_id, serial=True, page=_PAGE
        )
        if not rows or rows[0][0] != run_id or rows[0][2] is not None:
            return []
        archived = await self._archives.marks(key, run_id, ids) if rows[0][1] else []
        found = {(mark.seq, mark.kind): mark for mark in archived}
        for row in rows:
            for data in row[3:]:
                found |= {(mark.seq, mark.kind): mark for mark in decode_marks(data)}
        return sorted(found.values(), key=lambda mark: mark.seq)

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        return await self._heads.purge(key, run_id, expected_version, tombstone_ttl_ms)

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        return await self._heads.tombstone(key, run_id)

    async def close(self) -> None:
        """Wait for what is being archived."""
        await self._tails.close()

    async def _unborn_causes(self, key: RunKey) -> dict[str, int]:
        """What an unborn row recorded: the run that is born now records it anew, under the same numbers."""
        rows = await self._connection.rows(_CAUSES, key.namespace, key.workflow_id, page=_PAGE)
        return {cause: seq for run_id, causes in rows if run_id == "" for cause, seq in (causes or {}).items()}

    async def _events(self, key: RunKey, run_id: str, rows: Sequence[Row], bounds: tuple[int, int]) -> list[Recorded]:
        """The events of rows (first_seq, last_seq, data, chunks) in (after, up_to]; a row may be there twice."""
        after, up_to = bounds
        found: list[Recorded] = []
        for _, last_seq, data, chunks in rows:
            if last_seq <= after:
                continue
            whole = await self._chunks.read(key, run_id, chunks) if chunks else data
            try:
                found += [event for event in decode_events(whole) if after < event.seq <= up_to]
            except CodecError as error:
                raise StorageUnavailable(f"a history row of {run_id} is damaged: {error}") from error
            after = max(after, last_seq)
        return found
