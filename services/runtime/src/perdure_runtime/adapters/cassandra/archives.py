"""Commits that are no longer beside their head, in numbered archives of one partition each.

To move them is safe at any moment, by anybody, twice: rows never change, so a copy is as good as another; the count of
archives goes up by compare and set, and only then are the originals deleted. A reader takes a row that it finds in two
places once.

A purge may run meanwhile. Whoever moves says so first: from then on the count is 0 instead of null, and a purge also
clears the archive that is not counted yet. Copies carry the time at which their move began, and a purge deletes from
ahead of every clock: a copy that arrives after its run was purged stays deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import msgspec

from perdure_core.task_engine.authority import Mark
from perdure_runtime.adapters.cassandra.chunks import Chunks
from perdure_runtime.adapters.cassandra.connection import Connection, Row, Writes
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import RunKey

log = logging.getLogger("perdure.cassandra")

_PAGE = 5_000
_BATCH = 50
"""Rows of one partition written together."""
_BATCH_BYTES = 400_000
"""Of them, unless one row has more. They are one mutation, and a node takes none above half a segment of its commit
log: 16 MB unless it is set lower."""
_SKEW_US = 60_000_000
"""Moved rows are never written again: a deletion from the future beats every clock's skew."""

_COUNT = "SELECT archives, purging FROM commits WHERE namespace = ? AND workflow_id = ? LIMIT 1"
_ANNOUNCE = (
    "UPDATE commits SET archives = 0 WHERE namespace = ? AND workflow_id = ? IF archives = null AND purging = null"
)
_BESIDE = (
    "SELECT run_id, first_seq, last_seq, data, chunks, causes, marks FROM commits "
    "WHERE namespace = ? AND workflow_id = ?"
)
_COPY = (
    "INSERT INTO archives (namespace, workflow_id, archive, run_id, first_seq, last_seq, data, chunks) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_NOTE_CAUSE = (
    "INSERT INTO archived_causes (namespace, workflow_id, run_id, cause, seq) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_NOTE_MARKS = (
    "INSERT INTO archived_marks (namespace, workflow_id, run_id, command_id, first_seq, marks) "
    "VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_MARKS = "SELECT marks FROM archived_marks WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND command_id = ?"
_FORGET_MARKS = "DELETE FROM archived_marks USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_COUNT_UP = "UPDATE commits SET archives = ? WHERE namespace = ? AND workflow_id = ? IF archives = ? AND purging = null"
_DELETE_MOVED = (
    "DELETE FROM commits USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND first_seq <= ?"
)
_READ = (
    "SELECT first_seq, last_seq, data, chunks FROM archives "
    "WHERE namespace = ? AND workflow_id = ? AND archive = ? AND run_id = ? AND first_seq <= ?"
)
_FIRST = "SELECT run_id FROM archives WHERE namespace = ? AND workflow_id = ? AND archive = ? LIMIT 1"
_LAST = (
    "SELECT last_seq FROM archives WHERE namespace = ? AND workflow_id = ? AND archive = ? AND run_id = ? "
    "ORDER BY run_id DESC, first_seq DESC LIMIT 1"
)
_FIND_CAUSE = "SELECT run_id, seq FROM archived_causes WHERE namespace = ? AND workflow_id = ? AND cause = ? LIMIT 1"
_CAUSES = "SELECT cause, run_id FROM archived_causes WHERE namespace = ? AND workflow_id = ?"
_CAUSES_BESIDE = "SELECT causes FROM commits WHERE namespace = ? AND workflow_id = ? AND run_id = ?"
_FORGET_CAUSE = (
    "DELETE FROM archived_causes USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND cause = ? AND run_id = ?"
)
_DELETE = (
    "DELETE FROM archives USING TIMESTAMP ? WHERE namespace = ? AND workflow_id = ? AND archive = ? AND run_id = ?"
)
_ALL = 2**62
_MARK_LIST = msgspec.msgpack.Decoder(list[Mark])


def decode_marks(data: bytes | None) -> list[Mark]:
    """The marks of one command in one commit."""
    return _MARK_LIST.decode(data) if data else []


class Archives:
    def __init__(self, connection: Connection, chunks: Chunks) -> None:
        self._connection = connection
        self._chunks = chunks

    async def move(self, key: RunKey) -> None:
        """Move what lies beside the head into a new archive. A failure leaves it where it is, for the next time."""
        try:
            await self._move(key)
        except (StorageUnavailable, UnknownOutcome) as error:
            log.warning(
                "commits were not archived; the next commits will try again",
                extra={"action": "archive_failed", "workflow_id": key.workflow_id, "error": str(error)},
            )

    async def _move(self, key: RunKey) -> None:
        of = (key.namespace, key.workflow_id)
        began = time.time_ns() // 1000
        number = await self._announced(of)
        if number is None:
            return
        rows = [row for row in await self._connection.rows(_BESIDE, *of, serial=True, page=_PAGE) if row[0]]
        for part in _parts(rows):
            await self._connection.write_together([(_COPY, (*of, number, *row[:5], began)) for row in part])
            notes = [(_NOTE_CAUSE, (*of, row[0], *cause, began)) for row in part for cause in (row[5] or {}).items()]
            await self._together(notes)
            marked = [
                (_NOTE_MARKS, (*of, row[0], id, row[1], m, began)) for row in part for id, m in (row[6] or {}).items()
            ]
            await self._together(marked)
        if not await self._connection.decide(_COUNT_UP, number + 1, *of, number):
            return
        newest = {row[0]: row[1] for row in rows}
        for run_id, first_seq in newest.items():
            await self._connection.write(_DELETE_MOVED, _ahead(), *of, run_id, first_seq)

    async def _announced(self, of: tuple[str, str]) -> int | None:
        """The number of the next archive, once every purge to come knows of it; None: there is nothing to move now."""
        counted = await self._connection.rows(_COUNT, *of, serial=True)
        if not counted or counted[0][1] is not None:
            return None
        number: int | None = counted[0][0]
        if number is None:
            return 0 if await self._connection.decide(_ANNOUNCE, *of) else None
        return number

    async def _together(self, writes: Writes) -> None:
        for start in range(0, len(writes), _BATCH):
            await self._connection.write_together(writes[start : start + _BATCH])

    async def marks(self, key: RunKey, run_id: str, command_ids: Sequence[str]) -> list[Mark]:
        """What archived events say of these commands."""
        found: list[Mark] = []
        for command_id in command_ids:
            for (data,) in await self._connection.rows(_MARKS, key.namespace, key.workflow_id, run_id, command_id):
                found += decode_marks(data)
        return found

    async def read(self, key: RunKey, run_id: str, archives: int, bounds: tuple[int, int] = (0, _ALL)) -> list[Row]:
        """Rows (first_seq, last_seq, data, chunks) with events of the run in (after, up_to], oldest first."""
        after, up_to = bounds
        found: list[Row] = []
        for archive in range(archives):
            of = (key.namespace, key.workflow_id, archive, run_id)
            if after:
                last = await self._connection.rows(_LAST, *of)
                if not last or last[0][0] <= after:
                    continue
            found += await self._connection.rows(_READ, *of, up_to, page=_PAGE)
        return found

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        rows = await self._connection.rows(_FIND_CAUSE, key.namespace, key.workflow_id, cause)
        return (rows[0][0], rows[0][1]) if rows else None

    async def purge(self, key: RunKey, run_id: str, archives: int | None) -> None:
        """All of a run that is, or is being, archived. None archives: nobody ever began to."""
        if archives is None:
            return
        of, ahead = (key.namespace, key.workflow_id), _ahead()
        beside = await self._connection.rows(_CAUSES_BESIDE, *of, run_id, serial=True, page=_PAGE)
        causes = {cause for (found,) in beside for cause in found or ()}
        causes |= {cause for cause, run in await self._connection.rows(_CAUSES, *of, page=_PAGE) if run == run_id}
        for archive in range(archives + 1):
            await self._connection.write(_DELETE, ahead, *of, archive, run_id)
        await self._together([(_FORGET_CAUSE, (ahead, *of, cause, run_id)) for cause in sorted(causes)])
        await self._connection.write(_FORGET_MARKS, ahead, *of, run_id)

    async def empty(self, key: RunKey, archives: int) -> bool:
        for archive in range(archives):
            if await self._connection.rows(_FIRST, key.namespace, key.workflow_id, archive):
                return False
        return True


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows (run_id, first_seq, last_seq, data, ...) to be written together."""
    part: list[Row] = []
    size = 0
    for row in rows:
        data = len(row[3] or b"")
        if part and (len(part) == _BATCH or size + data > _BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += data
    if part:
        yield part


def _ahead() -> int:
    return time.time_ns() // 1000 + _SKEW_US
