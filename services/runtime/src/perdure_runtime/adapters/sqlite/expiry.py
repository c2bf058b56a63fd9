"""Removes what has expired. Expired rows are invisible at once; the file is rid of them a little later.

Blobs in transit do not expire while a program sleeps: its messages do not either, and are handled when it wakes.
"""

from __future__ import annotations

import contextlib

from perdure_runtime.adapters.sqlite.blobs import delete_some
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.errors import StorageUnavailable

_SWEEP_INTERVAL_MS = 60_000
_SWEEP_AGAIN_MS = 1_000
"""While there is more than one sweep takes."""
_SWEEP_ROWS = 500
"""Per table and sweep: about a millisecond of work. Of blobs it is fewer: see `delete_some`."""
_SLEEP_MS = 14 * 24 * 3_600_000
"""Who does not open a file for so long sleeps. Who does so more often has handled a message long before its blobs
expire, so that those of a program that runs for a minute a day go like any."""
_WAKE_MS = 24 * 3_600_000
"""After a sleep nothing in transit expires for so long: time to handle what is queued, and what that leads to."""
NO_RUN = 0
"""A head whose current run was purged while older ones are kept points to no run."""
_VACATE = f"""
    UPDATE heads SET version = 0, run_id = '', seq = 0, run = {NO_RUN}, expires_at = NULL, commit_id = ''
    WHERE number = ?
"""
_EXPIRED = "SELECT number FROM {} WHERE expires_at <= ? LIMIT ?"


class Expiry:
    """Now and then part of a transaction that is written anyway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        now = database.clock.now()
        self._sweep_at = now + _SWEEP_INTERVAL_MS
        ((used_at, self._spare_until),) = database.read("SELECT at, spare_until FROM last_use")
        if now - used_at > _SLEEP_MS:
            self._spare_until = now + _WAKE_MS
        with contextlib.suppress(StorageUnavailable):  # the disk is full: another opening finds that it slept longer
            database.write("UPDATE last_use SET at = ?, spare_until = ?", (now, self._spare_until))
            database.flush()
        database.riders.append(self)

    def of_transit(self) -> int:
        """What is in transit is gone if it expires at this time, or earlier."""
        now = self._database.clock.now()
        return now if now >= self._spare_until else 0

    def before_commit(self) -> None:
        database, now = self._database, self._database.clock.now()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_INTERVAL_MS
        for (number,) in database.read(_EXPIRED.format("heads"), (now, _SWEEP_ROWS)):
            forget_unborn(database, number)
        for table in ("tombstones", "tasks", "forgotten_runs"):
            database.write(f"DELETE FROM {table} WHERE number IN ({_EXPIRED.format(table)})", (now, _SWEEP_ROWS))
        database.write("UPDATE last_use SET at = ?", (now,))
        if delete_some(database, "expires_at <= ?", (self.of_transit(),)):
            self._sweep_at = now + _SWEEP_AGAIN_MS

    def committed(self) -> None:
        """Nothing is kept in memory."""

    def rolled_back(self) -> None:
        """The next sweep finds them again."""


def forget_unborn(database: Database, number: int) -> None:
    """The current run is unborn, and past its time: forget it, and the head too, unless earlier runs are kept."""
    for (run,) in database.read("SELECT run FROM runs WHERE head = ? AND run_id = ''", (number,)):
        forget_run(database, number, run)
    vacate_head(database, number)


def forget_run(database: Database, head: int, run: int) -> None:
    for table in ("events", "marks", "runs"):
        database.write(f"DELETE FROM {table} WHERE run = ?", (run,))
    database.write("DELETE FROM causes WHERE head = ? AND run = ?", (head, run))


def vacate_head(database: Database, number: int) -> None:
    """Its current run is gone. While earlier ones are kept it tells how many there were, and points to none."""
    if database.read("SELECT 1 FROM runs WHERE head = ? LIMIT 1", (number,)):
        database.write(_VACATE, (number,))
    else:
        database.write("DELETE FROM heads WHERE number = ?", (number,))
