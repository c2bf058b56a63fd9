"""Rows of runs and their counts, by shard, and where each run's row lies.

A run's row lies beside the counts of its shard, and one conditional batch changes both: so counts are exact, whatever
comes twice, dies half-way or comes back from the dead. A shard's version, counts and last rows are kept in memory by
whoever wrote last; who is not the last is refused, and reads again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.adapters.labels import attributes
from perdure_runtime.adapters.retention import FORGOTTEN_KEPT_MS
from perdure_runtime.errors import UnknownOutcome
from perdure_schemas.codec import encode_change
from perdure_schemas.messages import RunChanged
from perdure_schemas.partition import partition

SHARDS = 16
"""Of a namespace's runs, by workflow id; part of the layout. A list asks all, a projector writes to one at a time."""
_BATCH = 50
"""Runs written together, of half a kilobyte each: more would hold up the shard's other writers."""
_ROWS_MAX = 1_000
"""Versions of runs remembered, per shard."""
_FORGOTTEN_TTL_S = FORGOTTEN_KEPT_MS // 1000
_FORGOTTEN_VERSION = 2**62
"""Of a run that is forgotten: above every version of a change."""
BETWEEN = "\x1f"

READ_SHARD = "SELECT version, counts FROM listed_runs WHERE namespace = ? AND shard = ? LIMIT 1"
_KNOWN = (
    "SELECT run_version, name, status FROM listed_runs "
    "WHERE namespace = ? AND shard = ? AND started_at = ? AND workflow_id = ? AND run_id = ?"
)
COUNT = "UPDATE listed_runs SET version = ?, counts = ? WHERE namespace = ? AND shard = ? IF version = ?"
_PUT = (
    "INSERT INTO listed_runs (namespace, shard, started_at, workflow_id, run_id, run_version, name, status, tags, "
    "attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE = (
    "DELETE FROM listed_runs WHERE namespace = ? AND shard = ? AND started_at = ? AND workflow_id = ? AND run_id = ?"
)
_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?)"
_INDEXED = "SELECT run_id, started_at, forgotten FROM run_index WHERE namespace = ? AND workflow_id = ?"
_FORGET_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, forgotten) VALUES (?, ?, ?, true) USING TTL ?"
_END_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?) USING TTL ?"

_Known = tuple[int, str, str]
"""Version, name and status of a run's row."""


class _Shard:
    """What the last writer of a shard knows of it: nothing of this holds any more once another has written."""

    __slots__ = ("counts", "known", "version")

    def __init__(self, version: int, counts: dict[str, int]) -> None:
        self.version = version
        self.counts = counts
        self.known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        """By workflow id and run id; read after the version, so that a row that changed since is refused with it."""


class ListedRuns:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shards: dict[tuple[str, int], _Shard] = {}
        self._writing: dict[tuple[str, int], asyncio.Lock] = {}

    async def apply(self, namespace: str, shard: int, runs: Sequence[RunChanged]) -> None:
        """Changes of different runs of one shard."""
        async with self._lock(namespace, shard):
            for start in range(0, len(runs), _BATCH):
                await self._apply_runs(namespace, shard, runs[start : start + _BATCH])

    def _lock(self, namespace: str, shard: int) -> asyncio.Lock:
        """This process writes to a shard one after the other; others are told apart by the shard's version."""
        return self._writing.setdefault((namespace, shard), asyncio.Lock())

    async def forget(self, namespace: str, workflow_id: str, run_id: str) -> None:
        """Also of a run that is marked as forgotten: who marked it may have died before the row was gone."""
        async with self._lock(namespace, shard_of(workflow_id)):
            await self._forget_run((namespace, shard_of(workflow_id)), workflow_id, run_id)

    async def counts(self, namespace: str, shard: int) -> dict[str, int]:
        """Runs by name, `BETWEEN` and status."""
        return (await self._read_shard(namespace, shard)).counts

    async def indexed(self, namespace: str, workflow_id: str) -> list[Row]:
        """Of each run of the workflow id: its id, when it started, whether it is forgotten."""
        return await self._connection.rows(_INDEXED, namespace, workflow_id)

    async def _apply_runs(self, namespace: str, shard: int, runs: Sequence[RunChanged]) -> None:
        while True:
            state = self._shards.get((namespace, shard)) or await self._read_shard(namespace, shard)
            await self._know(state, namespace, shard, runs)
            counts, writes, known = dict(state.counts), [], {}
            for run in runs:
                before = state.known.get((run.workflow_id, run.run_id))
                if before is not None and before[0] >= run.version:
                    continue
                _count(counts, before, -1)
                known[run.workflow_id, run.run_id] = after = (run.version, run.name, run.status)
                _count(counts, after, 1)
                writes.append((_PUT, _row(namespace, shard, run)))
            if not writes or await self._write((namespace, shard), state, counts, writes):
                state.known.update(known)
                return

    async def _write(
        self, key: tuple[str, int], state: _Shard, counts: dict[str, int], writes: list[tuple[str, Row]]
    ) -> bool:
        """False: another wrote since the state was read, or may have; nothing that was known holds any more."""
        self._shards.pop(key, None)
        condition = (COUNT, (state.version + 1, counts, *key, state.version or None))
        try:
            if not await self._connection.decide_together(condition, writes):
                return False
        except UnknownOutcome:
            return False
        state.version += 1
        state.counts = counts
        self._shards[key] = state
        return True

    async def _know(self, state: _Shard, namespace: str, shard: int, runs: Sequence[RunChanged]) -> None:
        """Read the rows that are not in memory; of a run that is new, note where it lies, before it is counted."""

        async def read(run: RunChanged) -> None:
            of = (run.workflow_id, run.run_id)
            if of in state.known:
                state.known.move_to_end(of)
                return
            indexed = {row[0]: row[2] for row in await self.indexed(namespace, run.workflow_id)}
            if run.run_id not in indexed:
                await self._connection.write(_INDEX, namespace, *of, run.started_at)
                return
            if indexed[run.run_id]:
                state.known[of] = (_FORGOTTEN_VERSION, run.name, run.status)
                return
            rows = await self._connection.rows(_KNOWN, namespace, shard, run.started_at, *of)
            if rows and rows[0][0] is not None:
                state.known[of] = (rows[0][0], rows[0][1], rows[0][2])

        while len(state.known) > _ROWS_MAX:
            state.known.popitem(last=False)
        await asyncio.gather(*(read(run) for run in runs))

    async def _forget_run(self, key: tuple[str, int], workflow_id: str, run_id: str) -> None:
        """The shard's version goes up, also without a row: who did not know yet that it is forgotten is refused."""
        of = (key[0], workflow_id, run_id)
        await self._connection.write(_FORGET_INDEX, *of, _FORGOTTEN_TTL_S)
        while True:
            state = await self._read_shard(*key)
            started_at = {row[0]: row[1] for row in await self.indexed(key[0], workflow_id)}.get(run_id)
            row = None if started_at is None else (started_at, workflow_id, run_id)
            rows = [] if row is None else await self._connection.rows(_KNOWN, *key, *row, serial=True)
            counts, writes = dict(state.counts), list[tuple[str, Row]]()
            if row is not None and rows and rows[0][0] is not None:
                _count(counts, rows[0], -1)
                writes.append((_DELETE, (*key, *row)))
            if await self._write(key, state, counts, writes):
                break
        if started_at is not None:
            await self._connection.write(_END_INDEX, *of, started_at, _FORGOTTEN_TTL_S)

    async def _read_shard(self, namespace: str, shard: int) -> _Shard:
        rows = await self._connection.rows(READ_SHARD, namespace, shard, serial=True)
        return _Shard(rows[0][0] or 0, dict(rows[0][1] or {})) if rows else _Shard(0, {})


def shard_of(workflow_id: str) -> int:
    return partition(workflow_id, SHARDS)


def _count(counts: dict[str, int], known: Any, by: int) -> None:
    if known is None:
        return
    label = f"{known[1]}{BETWEEN}{known[2]}"
    total = counts.get(label, 0) + by
    if total:
        counts[label] = total
    else:
        counts.pop(label, None)


def _row(namespace: str, shard: int, run: RunChanged) -> Row:
    data = encode_change(msgspec.structs.replace(run, events=[]))
    key = (namespace, shard, run.started_at, run.workflow_id, run.run_id)
    return (*key, run.version, run.name, run.status, set(run.tags), attributes(run), data)
