"""Heads and histories in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.task_engine.authority import EVERY_COMMAND, Mark, marks
from perdure_runtime.ports import NO_HEAD, UNBOUNDED, Clock, Commit, Head, RunKey, vacant_head
from perdure_schemas.events import Recorded


class _Row:
    """Everything of one workflow id."""

    __slots__ = ("causes", "expires_at", "head", "marks", "runs")

    def __init__(self) -> None:
        self.head = NO_HEAD
        self.expires_at: int | None = None
        self.runs: dict[str, list[Recorded]] = {}
        self.causes: dict[str, tuple[Recorded, list[Recorded]]] = {}
        """By message id: the first event it caused, and the run that holds it."""
        self.marks: dict[str, dict[str, list[Mark]]] = {}
        """By run id, then by command id."""

    def forget(self, run_id: str) -> None:
        events = self.runs.pop(run_id, None)
        self.marks.pop(run_id, None)
        self.causes = {cause: found for cause, found in self.causes.items() if found[1] is not events}


class MemoryStore:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[RunKey, _Row] = {}
        self._tombstones: dict[RunKey, dict[str, int]] = {}
        """Until when, by run id."""

    async def load(self, key: RunKey) -> tuple[Head, Sequence[Recorded]]:
        row = self._row(key)
        return (NO_HEAD, ()) if row is None else (row.head, tuple(row.runs.get(row.head.run_id, ())))

    async def head(self, key: RunKey) -> Head:
        row = self._row(key)
        return NO_HEAD if row is None else row.head

    async def commit(self, commit: Commit) -> bool:
        row = self._row(commit.key)
        found = NO_HEAD if row is None else row.head
        if (found.version, found.run_id) != (commit.expected_version, commit.expected_run):
            return False
        if commit.blind and (row is not None or self._buried(commit.key)):
            return False
        if row is None:
            row = self._rows[commit.key] = _Row()
        before, after = row.head, commit.head
        if before.version and not before.run_id and after.run_id:
            self._adopt_unborn(row, commit)
        row.head = after
        row.expires_at = None if commit.unborn_ttl_ms is None else self._clock.now() + commit.unborn_ttl_ms
        run = row.runs.setdefault(after.run_id, [])
        for event in commit.events:
            run.append(event)
            row.causes.setdefault(event.cause, (event, run))
            for command_id, mark in marks(event):
                row.marks.setdefault(after.run_id, {}).setdefault(command_id, []).append(mark)
        return True

    @staticmethod
    def _adopt_unborn(row: _Row, commit: Commit) -> None:
        """The run records anew what its unborn row held; the causes found there stay findable."""
        run = row.runs[commit.head.run_id] = row.runs.pop("")
        if commit.events[0].seq == 1:
            run.clear()

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int = UNBOUNDED
    ) -> Sequence[Recorded]:
        row = self._row(key)
        run = [] if row is None else row.runs.get(run_id, [])
        return tuple(run[after_seq : min(up_to, after_seq + limit)])  # seqs count from 1 without a gap

    async def find_cause(self, key: RunKey, cause: str) -> tuple[str, int] | None:
        row = self._row(key)
        found = None if row is None else row.causes.get(cause)
        if row is None or found is None:
            return None
        event, events = found
        run_id = next(run_id for run_id, run in row.runs.items() if run is events)
        return run_id, event.seq

    async def task_marks(self, key: RunKey, run_id: str, task_id: str) -> Sequence[Mark]:
        row = self._row(key)
        if row is None or row.head.run_id != run_id:
            return ()
        found = row.marks.get(run_id, {})
        return sorted((*found.get(task_id, ()), *found.get(EVERY_COMMAND, ())), key=lambda mark: mark.seq)

    async def purge(self, key: RunKey, run_id: str, expected_version: int, tombstone_ttl_ms: int) -> bool:
        row = self._row(key)
        if (0 if row is None else row.head.version) != expected_version:
            return False
        self._tombstones.setdefault(key, {})[run_id] = self._clock.now() + tombstone_ttl_ms
        if row is None:
            return True
        row.forget(run_id)
        if row.head.run_id == run_id:
            row.head = vacant_head(row.head.runs)
        if not row.runs:
            del self._rows[key]
        return True

    async def tombstone(self, key: RunKey, run_id: str) -> bool:
        return self._tombstones.get(key, {}).get(run_id, 0) > self._clock.now()

    def _buried(self, key: RunKey) -> bool:
        """Whether any of its runs has a tombstone."""
        now = self._clock.now()
        return any(until > now for until in self._tombstones.get(key, {}).values())

    def _row(self, key: RunKey) -> _Row | None:
        row = self._rows.get(key)
        if row is not None and row.expires_at is not None and row.expires_at <= self._clock.now():
            row.forget("")
            row.head, row.expires_at = vacant_head(row.head.runs), None
            if not row.runs:
                del self._rows[key]
                return None
        return row
