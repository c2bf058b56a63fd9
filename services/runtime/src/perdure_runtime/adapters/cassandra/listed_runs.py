"""Rows of runs and their counts, by shard, and where each run's row lies.

A run's row lies beside the counts of its shard, and one conditional batch changes both: so counts are exact, whatever
comes twice, dies half-way or comes back from the dead. A shard's version, counts and last rows are kept in memory by
whoever wrote last; who is not the last is refused, and reads again.

Counts by build are many where builds are: so only those that change are written, beside the version that they are of.
A release that knows no builds moves the version on without them; whoever finds that counts the rows again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.adapters.labels import attributes
from perdure_runtime.adapters.retention import FORGOTTEN_KEPT_MS
from perdure_runtime.errors import UnknownOutcome
from perdure_schemas.codec import decode_change, encode_change
from perdure_schemas.messages import RunChanged
from perdure_schemas.partition import partition

SHARDS = 16
"""Of a namespace's runs, by workflow id; part of the layout. A list asks all, a projector writes to one at a time."""
_BATCH = 50
"""Runs written together, of half a kilobyte each: more would hold up the shard's other writers."""
_NOTED = 10
"""New runs whose places are noted by one request. Each is in a partition of its own, and nodes warn of more."""
_ROWS_MAX = 1_000
"""Versions of runs remembered, per shard."""
_FORGOTTEN_TTL_S = FORGOTTEN_KEPT_MS // 1000
_FORGOTTEN_VERSION = 2**62
"""Of a run that is forgotten: above every version of a change."""
BETWEEN = "\x1f"

_PARTITION = "WHERE namespace = ? AND shard = ?"
_PLACE = f"{_PARTITION} AND started_at = ? AND workflow_id = ? AND run_id = ?"
_READ_COUNTS = f"SELECT counts FROM listed_runs {_PARTITION} LIMIT 1"
_READ_SHARD = f"SELECT version, counts, builds, builds_version FROM listed_runs {_PARTITION} LIMIT 1"
_KNOWN = f"SELECT run_version, name, status, build FROM listed_runs {_PLACE}"
READ_DATA = f"SELECT data FROM listed_runs {_PLACE}"
_COUNT_ANEW = (
    f"UPDATE listed_runs SET version = ?, builds_version = ?, counts = ?, builds = ? {_PARTITION} IF version = ?"
)
_COUNT = (
    "UPDATE listed_runs SET version = ?, builds_version = ?, counts = ?, builds = builds + ?, builds = builds - ? "
    f"{_PARTITION} IF version = ?"
)
_PUT = (
    "INSERT INTO listed_runs (namespace, shard, started_at, workflow_id, run_id, run_version, name, status, build, "
    "tags, attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE = f"DELETE FROM listed_runs {_PLACE}"
_ROWS = "SELECT started_at, workflow_id, run_id, run_version, name, status, {} FROM listed_runs " + _PARTITION
_AFTER = " AND (started_at, workflow_id, run_id) < (?, ?, ?)"
_ROWS_AT_A_TIME = 1_000
"""While rows are counted: half a megabyte, if their data is needed."""
_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?)"
_INDEXED = "SELECT run_id, started_at, forgotten FROM run_index WHERE namespace = ? AND workflow_id = ?"
_INDEXED_AMONG = "SELECT workflow_id, run_id, forgotten FROM run_index WHERE namespace = ? AND workflow_id IN ?"
_FORGET_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, forgotten) VALUES (?, ?, ?, true) USING TTL ?"
_END_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?) USING TTL ?"

_Known = tuple[int, str, str, str]
"""Version, name, status and build of a run's row; a build that is empty: any."""


@dataclass(slots=True)
class Counts:
    """Runs of a shard."""

    statuses: dict[str, int] = field(default_factory=dict)
    """By name, `BETWEEN` and status."""
    builds: dict[str, int] = field(default_factory=dict)
    """By name, `BETWEEN`, status, `BETWEEN` and build."""

    def copy(self) -> Counts:
        return Counts(dict(self.statuses), dict(self.builds))


@dataclass(slots=True)
class Shard:
    """What the last writer of a shard knows of it: nothing of this holds any more once another has written."""

    version: int
    counts: Counts
    recounted: bool = False
    """Its counts by build were not stored, but made from the rows."""
    known: OrderedDict[tuple[str, str], _Known] = field(default_factory=OrderedDict)
    """By workflow id and run id; read after the version, so that a row that changed since is refused with it."""


class ListedRuns:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shards: dict[tuple[str, int], Shard] = {}
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
        rows = await self._connection.rows(_READ_COUNTS, namespace, shard, serial=True)
        return dict(rows[0][0] or {}) if rows else {}

    async def builds(self, namespace: str, shard: int) -> dict[str, int]:
        """Runs by name, `BETWEEN`, status, `BETWEEN` and build."""
        state = await read_shard(self._connection, namespace, shard)
        if state.recounted:
            async with self._lock(namespace, shard):
                await self._write((namespace, shard), state, state.counts, [])  # so that nobody has to count again
        return state.counts.builds

    async def indexed(self, namespace: str, workflow_id: str) -> list[Row]:
        """Of each run of the workflow id: its id, when it started, whether it is forgotten."""
        return await self._connection.rows(_INDEXED, namespace, workflow_id)

    async def _apply_runs(self, namespace: str, shard: int, runs: Sequence[RunChanged]) -> None:
        while True:
            state = self._shards.get((namespace, shard)) or await read_shard(self._connection, namespace, shard)
            await self._know(state, namespace, shard, runs)
            counts, writes, known = state.counts.copy(), [], {}
            for run in runs:
                before = state.known.get((run.workflow_id, run.run_id))
                if before is not None and before[0] >= run.version:
                    continue
                _count(counts, before, -1)
                known[run.workflow_id, run.run_id] = after = (run.version, run.name, run.status, run.build or "")
                _count(counts, after, 1)
                writes.append((_PUT, _row(namespace, shard, run)))
            if not writes or await self._write((namespace, shard), state, counts, writes):
                state.known.update(known)
                return

    async def _write(self, key: tuple[str, int], state: Shard, counts: Counts, writes: list[tuple[str, Row]]) -> bool:
        """False: another wrote since the state was read, or may have; nothing that was known holds any more."""
        self._shards.pop(key, None)
        try:
            if not await self._connection.decide_together(new_counts(key, state, counts), writes):
                return False
        except UnknownOutcome:
            return False
        state.version += 1
        state.counts, state.recounted = counts, False
        self._shards[key] = state
        return True

    async def _know(self, state: Shard, namespace: str, shard: int, runs: Sequence[RunChanged]) -> None:
        """Read the rows that are not in memory; of runs that are new, note where they lie, before they are counted."""
        while len(state.known) > _ROWS_MAX:
            state.known.popitem(last=False)
        unknown = {(run.workflow_id, run.run_id): run for run in runs}
        for of in unknown.keys() & state.known.keys():
            state.known.move_to_end(of)
            del unknown[of]
        if not unknown:
            return
        ids = list({workflow_id for workflow_id, _ in unknown})
        rows = await self._connection.rows(_INDEXED_AMONG, namespace, ids)
        indexed = {(workflow_id, run_id): forgotten for workflow_id, run_id, forgotten in rows}

        async def read(of: tuple[str, str], run: RunChanged) -> None:
            if indexed[of]:
                state.known[of] = (_FORGOTTEN_VERSION, run.name, run.status, "")
                return
            known = await self._read_known((namespace, shard, run.started_at, *of))
            if known is not None:
                state.known[of] = known

        new = [(_INDEX, (namespace, *of, run.started_at)) for of, run in unknown.items() if of not in indexed]
        await asyncio.gather(
            *(self._connection.write_together(new[start : start + _NOTED]) for start in range(0, len(new), _NOTED)),
            *(read(of, run) for of, run in unknown.items() if of in indexed),
        )

    async def _forget_run(self, key: tuple[str, int], workflow_id: str, run_id: str) -> None:
        """The shard's version goes up, also without a row: who did not know yet that it is forgotten is refused."""
        of = (key[0], workflow_id, run_id)
        await self._connection.write(_FORGET_INDEX, *of, _FORGOTTEN_TTL_S)
        while True:
            state = await read_shard(self._connection, *key)
            started_at = {row[0]: row[1] for row in await self.indexed(key[0], workflow_id)}.get(run_id)
            row = None if started_at is None else (started_at, workflow_id, run_id)
            known = None if row is None else await self._read_known((*key, *row), serial=True)
            counts, writes = state.counts.copy(), list[tuple[str, Row]]()
            if row is not None and known is not None:
                _count(counts, known, -1)
                writes.append((_DELETE, (*key, *row)))
            if await self._write(key, state, counts, writes):
                break
        if started_at is not None:
            await self._connection.write(_END_INDEX, *of, started_at, _FORGOTTEN_TTL_S)

    async def _read_known(self, place: Row, *, serial: bool = False) -> _Known | None:
        rows = await self._connection.rows(_KNOWN, *place, serial=serial)
        if not rows or rows[0][0] is None:
            return None
        version, name, status, build = rows[0]
        if build is None:  # written before rows had it
            data = await self._connection.rows(READ_DATA, *place, serial=serial)
            build = _build_in(data[0][0]) if data else ""
        return version, name, status, build


def shard_of(workflow_id: str) -> int:
    return partition(workflow_id, SHARDS)


async def read_shard(connection: Connection, namespace: str, shard: int) -> Shard:
    """The version is read before the rows, if they have to be counted: counts of older rows are refused."""
    rows = await connection.rows(_READ_SHARD, namespace, shard, serial=True)
    version, statuses, builds, builds_version = rows[0] if rows else (None, None, None, None)
    state = Shard(version or 0, Counts(dict(statuses or {}), dict(builds or {})))
    if builds_version != version:
        state.counts.builds = (await count_rows(connection, namespace, shard)).builds
        state.recounted = True
    return state


async def count_rows(connection: Connection, namespace: str, shard: int) -> Counts:
    """Of the runs that are listed."""
    counts, after = Counts(), ""
    values: tuple[object, ...] = ()
    while True:
        limit = f"{after} LIMIT {_ROWS_AT_A_TIME}"
        rows = await connection.rows(_ROWS.format("build") + limit, namespace, shard, *values)
        if any(row[3] is not None and row[6] is None for row in rows):  # written before rows had it
            rows = await connection.rows(_ROWS.format("data") + limit, namespace, shard, *values)
            rows = [(*row[:6], None if row[6] is None else _build_in(row[6])) for row in rows]
        for row in rows:
            if row[3] is not None:
                _count(counts, row[3:], 1)
        if len(rows) < _ROWS_AT_A_TIME:
            return counts
        after, values = _AFTER, tuple(rows[-1][:3])


def new_counts(key: tuple[str, int], state: Shard, counts: Counts) -> tuple[str, Row]:
    """The conditional write of a shard's counts: refused if another has written since the state was read."""
    version, before = state.version + 1, state.counts.builds
    heads = (version, version, counts.statuses)
    if state.recounted:
        return _COUNT_ANEW, (*heads, counts.builds, *key, state.version or None)
    put = {label: runs for label, runs in counts.builds.items() if before.get(label) != runs}
    return _COUNT, (*heads, put, before.keys() - counts.builds.keys(), *key, state.version or None)


def _count(counts: Counts, known: Any, by: int) -> None:
    if known is None:
        return
    _, name, status, build = known
    label = f"{name}{BETWEEN}{status}"
    for labels, each in ((counts.statuses, label), (counts.builds, f"{label}{BETWEEN}{build}")):
        total = labels.get(each, 0) + by
        if total:
            labels[each] = total
        else:
            labels.pop(each, None)


def _build_in(data: bytes) -> str:
    change = decode_change(data)
    return (change.build or "") if isinstance(change, RunChanged) else ""


def _row(namespace: str, shard: int, run: RunChanged) -> Row:
    data = encode_change(msgspec.structs.replace(run, events=[]))
    key = (namespace, shard, run.started_at, run.workflow_id, run.run_id)
    return (*key, run.version, run.name, run.status, run.build or "", set(run.tags), attributes(run), data)
