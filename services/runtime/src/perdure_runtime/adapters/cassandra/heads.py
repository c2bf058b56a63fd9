"""The head row: what it says now, and how a run ends in it.

A purge is marked in the head first; from then on whoever sees the mark goes through with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from perdure_runtime.adapters.cassandra.archives import Archives
from perdure_runtime.adapters.cassandra.chunks import Chunks
from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.ports import NO_HEAD, Clock, Head, RunKey, vacant_head

EXPIRY_SLACK_S = 86_400
"""An unborn row is dead when its `expires_at` says so; Cassandra drops it a day later, whatever its clocks say."""
_DELETE_AHEAD_US = 60_000_000
"""Rows of a purged or archived run are never written again: a deletion from the future beats every clock's skew."""

HEAD_COLUMNS = "version, head_run, head_seq, runs, expires_at, archives, purging"
_HEAD = f"SELECT {HEAD_COLUMNS} FROM commits WHERE namespace = ? AND workflow_id = ? LIMIT 1"
_DELETE_RUN = "DELETE FROM commits USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
DELETE_UNBORN = "DELETE FROM commits WHERE namespace = ? AND workflow_id = ? AND run_id = ''"
_FORGET_HEAD = (
    "UPDATE commits SET version = null, head_run = null, head_seq = null, commit_id = null, "
    "expires_at = null, purging = ? WHERE namespace = ? AND workflow_id = ? IF version = ?"
)
_MARK_PURGING = "UPDATE commits SET purging = ? WHERE namespace = ? AND workflow_id = ? IF version = ?"
_PURGED = "UPDATE commits SET purging = null WHERE namespace = ? AND workflow_id = ? IF purging = ?"
_ANY_RUN = "SELECT run_id FROM commits WHERE namespace = ? AND workflow_id = ? LIMIT 1"
_FORGET_ALL = (
    "UPDATE commits SET archives = null, runs = null WHERE namespace = ? AND workflow_id = ? "
    "IF version = null AND archives = ? AND runs = ?"
)
_NOTE_BURIED = "UPDATE commits USING TTL ? SET buried = true WHERE namespace = ? AND workflow_id = ?"
"""Some run has a tombstone: so that a commit of an id taken for new finds out by its condition. Goes when that does."""
_BURY = "INSERT INTO tombstones (namespace, workflow_id, run_id, expires_at) VALUES (?, ?, ?, ?) USING TTL ?"
_TOMBSTONE = "SELECT expires_at FROM tombstones WHERE namespace = ? AND workflow_id = ? AND run_id = ?"


@dataclass(frozen=True, slots=True)
class HeadState:
    """The static columns."""

    head: Head
    expires_at: int | None
    archives: int | None
    """None: nobody ever began to archive."""
    purging: str | None

    @classmethod
    def of(cls, row: Row) -> HeadState:
        version, run, seq, runs, expires_at, archives, purging = row[:7]
        head = Head(version=version, run_id=run, seq=seq, runs=runs or 0) if version else vacant_head(runs or 0)
        return cls(head, expires_at, archives, purging)


class Heads:
    """Reads heads, and ends them."""

    def __init__(self, connection: Connection, clock: Clock, parts: tuple[Chunks, Archives], slack_s: int) -> None:
        self._connection = connection
        self._clock = clock
        self._chunks, self._archives = parts
        self._slack_s = slack_s

    async def state(self, key: RunKey, finish: bool = True) -> HeadState:
        while True:
            rows = await self._connection.rows(_HEAD, key.namespace, key.workflow_id, serial=True)
            state = HeadState.of(rows[0]) if rows else HeadState(NO_HEAD, None, None, None)
            if state.purging is None or not finish:
                return state
            await self.finish_purge(key, state)

    def expired(self, state: HeadState) -> bool:
        return state.expires_at is not None and state.expires_at <= self._clock.now()

    async def forget_expired(self, key: RunKey) -> bool:
        """Make way for a start where an unborn row is past its time; whether there was one."""
        state = await self.state(key)
        if not state.head.version or not self.expired(state):
            return False
        await self._connection.write(DELETE_UNBORN, key.namespace, key.workflow_id)
        won = await self._connection.decide(_FORGET_HEAD, None, key.namespace, key.workflow_id, state.head.version)
        if won:
            await self._forget_all(key, state)
        return won

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        state = await self.state(key)
        if state.head.version != expected_version:
            return False
        marked = f"{self._clock.now() + tombstone_ttl_ms}:{run_id}"
        expected = expected_version or None
        if state.head.run_id == run_id:
            won = await self._connection.decide(_FORGET_HEAD, marked, key.namespace, key.workflow_id, expected)
        else:
            won = await self._connection.decide(_MARK_PURGING, marked, key.namespace, key.workflow_id, expected)
        if won:
            await self.finish_purge(key, await self.state(key, finish=False))
        return won

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        rows = await self._connection.rows(_TOMBSTONE, key.namespace, key.workflow_id, run_id)
        return bool(rows) and rows[0][0] > self._clock.now()

    async def finish_purge(self, key: RunKey, state: HeadState) -> None:
        """From the mark in the head on, whoever sees it goes through with it: each step may be repeated."""
        if state.purging is None:
            return
        until, _, run_id = state.purging.partition(":")
        left_ms = max(0, int(until) - self._clock.now())
        ttl_s = left_ms // 1000 + self._slack_s
        await self._connection.write(_NOTE_BURIED, ttl_s, key.namespace, key.workflow_id)
        await self._connection.write(_BURY, key.namespace, key.workflow_id, run_id, int(until), ttl_s)
        await self._archives.purge(key, run_id, state.archives)
        await self._chunks.purge(key, run_id)
        ahead = time.time_ns() // 1000 + _DELETE_AHEAD_US
        await self._connection.write(_DELETE_RUN, ahead, key.namespace, key.workflow_id, run_id)
        await self._connection.decide(_PURGED, key.namespace, key.workflow_id, state.purging)
        if not state.head.version:
            await self._forget_all(key, state)

    async def _forget_all(self, key: RunKey, state: HeadState) -> None:
        """There is no current run: where no earlier one is kept either, nothing stays."""
        rows = await self._connection.rows(_ANY_RUN, key.namespace, key.workflow_id, serial=True)
        if any(run_id is not None for (run_id,) in rows):
            return
        if state.archives is None or await self._archives.empty(key, state.archives):
            known = state.archives, state.head.runs
            await self._connection.decide(_FORGET_ALL, key.namespace, key.workflow_id, *known)
