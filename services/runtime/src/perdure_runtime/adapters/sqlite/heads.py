"""Head rows and run numbers. A head is read once, then kept in memory and written many times."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.adapters.sqlite.expiry import forget_unborn, vacate_head
from perdure_runtime.ports import Commit, Head, RunKey

_ROWS_MAX = 10_000
"""Heads kept in memory, about 0.5 kB each."""

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


class HeadRow:
    """A head with its keys."""

    __slots__ = ("expires_at", "head", "number", "run")

    def __init__(self, number: int, run: int, head: Head, expires_at: int | None) -> None:
        self.number = number
        self.run = run
        self.head = head
        self.expires_at = expires_at


class Heads:
    """As the file has them, the open transaction included: nobody else writes it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        ((heads, runs),) = database.read(_LAST_NUMBERS)
        self._numbers: Iterator[int] = count(heads + 1)
        self._runs: Iterator[int] = count(runs + 1)
        self._rows: dict[RunKey, HeadRow] = {}
        database.riders.append(self)

    def before_commit(self) -> None:
        """Every write is in the transaction already."""

    def committed(self) -> None:
        """The rows in memory stand."""

    def rolled_back(self) -> None:
        self._rows.clear()

    def find(self, key: RunKey) -> HeadRow | None:
        row = self._rows.get(key)
        if row is None:
            found = self._database.read(_HEAD, (key.namespace, key.workflow_id))
            if not found:
                return None
            number, version, run_id, seq, runs, run, expires_at = found[0]
            row = HeadRow(number, run, Head(version=version, run_id=run_id, seq=seq, runs=runs), expires_at)
            self._keep(key, row)
        if row.expires_at is not None and row.expires_at <= self._database.clock.now():
            forget_unborn(self._database, row.number)
            self._rows.pop(key, None)
            return self.find(key)
        return row

    def write(self, commit: Commit, row: HeadRow | None, run: int) -> int:
        """The commit's head, in place of `row`, of the run of this number; returns the head's number."""
        head, ttl = commit.head, commit.unborn_ttl_ms
        expires_at = None if ttl is None else self._database.clock.now() + ttl
        number = next(self._numbers) if row is None else row.number
        values = (head.version, head.run_id, head.seq, head.runs, run, expires_at, commit.commit_id, number)
        if row is None:
            self._database.write(_INSERT_HEAD, (*values, commit.key.namespace, commit.key.workflow_id))
        else:
            self._database.write(_UPDATE_HEAD, values)
        self._keep(commit.key, HeadRow(number, run, head, expires_at))
        return number

    def forget_run(self, key: RunKey, row: HeadRow, run_id: str) -> None:
        """The run is gone, and the head with the last of its runs."""
        last = not self._database.read("SELECT 1 FROM runs WHERE head = ? LIMIT 1", (row.number,))
        if last or row.head.run_id == run_id:
            vacate_head(self._database, row.number)
        self._rows.pop(key, None)

    def next_run(self) -> int:
        """The number of a new run."""
        return next(self._runs)

    def run(self, head: int, run_id: str) -> int | None:
        """The number of a run of this head."""
        found = self._database.read("SELECT run FROM runs WHERE head = ? AND run_id = ?", (head, run_id))
        return found[0][0] if found else None

    def _keep(self, key: RunKey, row: HeadRow) -> None:
        rows = self._rows
        if len(rows) >= _ROWS_MAX and key not in rows:
            del rows[next(iter(rows))]
        rows[key] = row
